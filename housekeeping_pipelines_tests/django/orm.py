"""What the website itself does with its database; run as a script, it prints a count and fails where Django would."""

import os
import sys
from datetime import timedelta


def main() -> None:
    """Log somebody in, talk, write to the admin's log, delete all of it again, and read what there is."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "housekeeping_pipelines_tests.django.website.settings"
    import django

    django.setup()
    from django.contrib.admin.models import ADDITION, LogEntry
    from django.contrib.auth.models import Group, User
    from django.contrib.contenttypes.models import ContentType
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session
    from django.core.management import call_command
    from django.utils import timezone

    from housekeeping_pipelines_tests.django.website.chat.models import ChatMessage, Conversation

    before = [model.objects.count() for model in (User, Session, LogEntry, Conversation, ChatMessage)]
    now = timezone.now()
    ada = User.objects.create_user("ada", "ada@example.org", "secret")
    ada.groups.add(Group.objects.first())
    session = SessionStore()
    session["_auth_user_id"] = str(ada.pk)
    session.save()
    talk = Conversation.objects.create(owner=ada, title="After", created_at=now, updated_at=now)
    ChatMessage.objects.bulk_create(ChatMessage(conversation=talk, body=str(n), sent_at=now) for n in range(20))
    kind = ContentType.objects.get_for_model(Conversation)
    LogEntry.objects.create(
        user=ada, content_type=kind, object_id=talk.pk, object_repr="After", action_flag=ADDITION, change_message=""
    )
    assert ChatMessage.objects.filter(conversation__owner=ada, sent_at__gt=now - timedelta(hours=1)).count() == 20
    gone = ada.delete()[1]
    assert gone["chat.ChatMessage"] == 20
    assert gone["admin.LogEntry"] == gone["auth.User_groups"] == 1
    session.delete()
    after = [model.objects.count() for model in (User, Session, LogEntry, Conversation, ChatMessage)]
    assert after == before
    call_command("migrate", check_unapplied=True, verbosity=0)
    call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)
    sys.stdout.write(f"{sum(after)}\n")


if __name__ == "__main__":
    main()
