@echo off
rem The housekeeping by the Windows Task Scheduler. Keep this file in the folder that holds .venv and .env; .env must
rem name DATABASE_URL and DAGSTER_PG_URL, since the embedded PostgreSQL is not for Windows. Register it once:
rem
rem   schtasks /Create /TN "Housekeeping daily" /TR "C:\housekeeping\housekeeping.bat daily" /SC DAILY /ST 02:00
rem   schtasks /Create /TN "Housekeeping weekly" /TR "C:\housekeeping\housekeeping.bat weekly" /SC WEEKLY /D SUN /ST 03:00
rem   schtasks /Create /TN "Housekeeping statistics" /TR "C:\housekeeping\housekeeping.bat statistics" /SC HOURLY /MO 6 /ST 00:00
rem   schtasks /Create /TN "Housekeeping trash" /TR "C:\housekeeping\housekeeping.bat trash" /SC DAILY /ST 04:30
rem   schtasks /Create /TN "Housekeeping sessions" /TR "C:\housekeeping\housekeeping.bat sessions" /SC HOURLY /ST 00:00
rem   schtasks /Create /TN "Housekeeping uploads" /TR "C:\housekeeping\housekeeping.bat uploads" /SC DAILY /ST 02:00
rem   schtasks /Create /TN "Housekeeping media" /TR "C:\housekeeping\housekeeping.bat media" /SC DAILY /ST 00:00
rem   schtasks /Create /TN "Housekeeping objects" /TR "C:\housekeeping\housekeeping.bat objects" /SC DAILY /ST 03:30
rem   schtasks /Create /TN "Housekeeping vectors" /TR "C:\housekeeping\housekeeping.bat vectors" /SC DAILY /ST 04:00
rem   schtasks /Create /TN "Housekeeping documents" /TR "C:\housekeeping\housekeeping.bat documents" /SC MINUTE /MO 5
rem   schtasks /Create /TN "Housekeeping outbox" /TR "C:\housekeeping\housekeeping.bat outbox" /SC MINUTE /MO 30
rem
rem A task's "Last Run Result" is the exit code: 0 done, 1 failed or partial, 2 configuration, 3 refused.

cd /d "%~dp0"
set "PATH=%~dp0.venv\Scripts;%PATH%"
set "LOG_FILE=housekeeping.log"

if "%1"=="daily" (
    housekeeping.exe run-housekeeping
    exit /b
)
if "%1"=="weekly" (
    housekeeping.exe run weekly_cleanup
    exit /b
)
if "%1"=="statistics" (
    housekeeping.exe run-housekeeping --task stats
    exit /b
)
if "%1"=="trash" (
    housekeeping.exe run purge_trash
    exit /b
)
if "%1"=="sessions" (
    housekeeping.exe scheduled-cleanup
    exit /b
)
if "%1"=="uploads" (
    housekeeping.exe cleanup-orphan-documents
    exit /b
)
if "%1"=="media" (
    housekeeping.exe orphan-cleanup --apply
    exit /b
)
if "%1"=="objects" (
    housekeeping.exe cleanup-orphan-objects --apply
    exit /b
)
if "%1"=="vectors" (
    housekeeping.exe cleanup-orphan-vectors --apply
    exit /b
)
if "%1"=="documents" (
    housekeeping.exe sync-watched-documents
    exit /b
)
if "%1"=="outbox" (
    housekeeping.exe run drain_file_outbox
    exit /b
)
echo usage: housekeeping.bat daily, weekly, statistics, trash, sessions, uploads, media, objects, vectors, documents or outbox
exit /b 2
