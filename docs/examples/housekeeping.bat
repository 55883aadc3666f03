@echo off
rem The housekeeping by the Windows Task Scheduler. Keep this file in the folder that holds .venv and .env; .env must
rem name DATABASE_URL and DAGSTER_PG_URL, since the embedded PostgreSQL is not for Windows. Register it once:
rem
rem   schtasks /Create /TN "Housekeeping daily"      /SC DAILY  /ST 02:00        /TR "C:\housekeeping\housekeeping.bat daily"
rem   schtasks /Create /TN "Housekeeping weekly"     /SC WEEKLY /D SUN /ST 03:00 /TR "C:\housekeeping\housekeeping.bat weekly"
rem   schtasks /Create /TN "Housekeeping statistics" /SC HOURLY /MO 6 /ST 00:00  /TR "C:\housekeeping\housekeeping.bat statistics"
rem   schtasks /Create /TN "Housekeeping trash"      /SC DAILY  /ST 04:30        /TR "C:\housekeeping\housekeeping.bat trash"
rem
rem The task's "Last Run Result" is the exit code: 0 done, 1 failed or partial, 2 configuration, 3 refused.

cd /d "%~dp0"
set "PATH=%~dp0.venv\Scripts;%PATH%"
set "LOG_FILE=housekeeping.log"

if "%1"=="daily" goto daily
if "%1"=="weekly" goto weekly
if "%1"=="statistics" goto statistics
if "%1"=="trash" goto trash
echo usage: housekeeping.bat daily ^| weekly ^| statistics ^| trash
exit /b 2

:daily
housekeeping.exe run-housekeeping
exit /b %ERRORLEVEL%

:weekly
housekeeping.exe run weekly_cleanup
exit /b %ERRORLEVEL%

:statistics
housekeeping.exe run-housekeeping --task stats
exit /b %ERRORLEVEL%

:trash
housekeeping.exe run purge_trash
exit /b %ERRORLEVEL%
