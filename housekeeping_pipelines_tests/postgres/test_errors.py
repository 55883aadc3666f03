"""A connection that fails is told apart by what libpq says, whatever language the server speaks."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa

from housekeeping_pipelines.errors import ConfigurationError, Unavailable
from housekeeping_pipelines.postgres.errors import explain

URL = sa.make_url("postgresql://app:secret@db.example:5432/shop")
SERVER = 'connection to server at "db.example" (192.0.2.1), port 5432 failed: '


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("FATAL:  Passwort-Authentifizierung für Benutzer »app« fehlgeschlagen", ConfigurationError),
        ("FATAL:  la base de données « shop » n'existe pas", ConfigurationError),
        ('ВАЖНО:  пользователь "app" не прошёл проверку подлинности (по паролю)', ConfigurationError),
        ('FATAL:  password authentication failed for user "app"', ConfigurationError),
        ('FATAL:  database "shop" does not exist', ConfigurationError),
        ("Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?", Unavailable),
        ("timeout expired", Unavailable),
        ("FATAL:  the database system is starting up", Unavailable),
        ("FATAL:  sorry, too many clients already", Unavailable),
    ],
)
def test_a_refusal_is_a_wrong_setting_and_silence_is_not(said: str, kind: type[Exception]) -> None:
    error = sa.exc.OperationalError("", None, psycopg.OperationalError(SERVER + said))
    explained = explain(error, URL)
    assert type(explained) is kind
    assert "secret" not in explained.one_line
    assert "db.example:5432" in explained.one_line
