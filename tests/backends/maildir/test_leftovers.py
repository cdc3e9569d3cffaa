"""Cleaning: what goes, and above all what does not."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from smtpfw.backends.maildir.folder import FileNames
from smtpfw.backends.maildir.leftovers import remove_leftovers
from smtpfw.backends.maildir.template import PathTemplate
from tests.backends.maildir.fakes import MaildirTestCase

HOUR = 3600.0
NOW = 1_785_240_000.0


class LeftoverTests(MaildirTestCase):
    def maildir(self, path: str) -> Path:
        for name in ("tmp", "new", "cur"):
            (self.root / path / name).mkdir(parents=True)
        return self.root / path

    def file(self, path: Path, hours: float) -> Path:
        path.write_text("x")
        os.utime(path, (NOW - hours * HOUR, NOW - hours * HOUR))
        return path

    def clean(self, template: str) -> tuple[int, list[str]]:
        cleaned = remove_leftovers(PathTemplate(str(self.root / template)), NOW, threading.Event())
        return cleaned.files, [str(failure) for failure in cleaned.failures]

    def test_only_old_files_in_tmp_go(self) -> None:
        maildir = self.maildir("Maildir")
        old = self.file(maildir / "tmp" / "old", 36.1)
        kept = [self.file(maildir / folder / name, hours) for folder, name, hours in (
            ("tmp", "young", 35.9), ("new", "old", 99), ("cur", "old", 99),
        )]  # fmt: skip
        self.assertEqual(self.clean("Maildir"), (1, []))
        self.assertFalse(old.exists())
        self.assertTrue(all(path.exists() for path in kept))

    def test_only_regular_files_go(self) -> None:
        maildir = self.maildir("Maildir")
        elsewhere = self.file(self.root / "elsewhere", 99)
        link = maildir / "tmp" / "link"
        link.symlink_to(elsewhere)
        os.utime(link, (0, 0), follow_symlinks=False)
        (maildir / "tmp" / "folder").mkdir()
        os.mkfifo(maildir / "tmp" / "fifo")
        os.utime(maildir / "tmp" / "fifo", (0, 0))
        self.assertEqual(self.clean("Maildir"), (0, []))
        self.assertTrue(elsewhere.exists())
        self.assertEqual(len(list((maildir / "tmp").iterdir())), 3)

    def test_a_link_in_the_place_of_tmp_leads_nowhere(self) -> None:
        maildir = self.maildir("Maildir")
        elsewhere = self.root / "elsewhere"
        elsewhere.mkdir()
        kept = self.file(elsewhere / "old", 99)
        (maildir / "tmp").rmdir()
        (maildir / "tmp").symlink_to(elsewhere)
        removed, failures = self.clean("Maildir")
        self.assertEqual((removed, len(failures)), (0, 1))
        self.assertIn(f"could not clean {maildir}/tmp", failures[0])
        self.assertTrue(kept.exists())

    def test_every_folder_of_a_template_and_no_other(self) -> None:
        for path in ("x.org/amy", "x.org/bob", "y.org/amy", "deeper/x.org/amy", ".hidden/amy"):
            self.file(self.maildir(path) / "tmp" / "old", 99)
        (self.root / "x.org" / "plain" / "tmp").mkdir(parents=True)
        self.file(self.root / "x.org" / "plain" / "tmp" / "old", 99)
        self.assertEqual(self.clean("{domain}/{user}"), (3, []))
        left = sorted(str(path.relative_to(self.root)) for path in self.root.rglob("old"))
        self.assertEqual(left, [".hidden/amy/tmp/old", "deeper/x.org/amy/tmp/old", "x.org/plain/tmp/old"])

    def test_a_link_in_the_place_of_a_user_or_domain_is_not_followed(self) -> None:
        real = self.maildir("outside/amy")
        kept = self.file(real / "tmp" / "old", 99)
        (self.root / "mail" / "x.org").mkdir(parents=True)
        (self.root / "mail" / "x.org" / "amy").symlink_to(real)
        (self.root / "mail" / "y.org").symlink_to(real.parent)
        self.assertEqual(self.clean("mail/{domain}/{user}"), (0, []))
        self.assertTrue(kept.exists())
        # The operator's own part may be a link.
        (self.root / "link").symlink_to(self.root / "outside")
        self.assertEqual(self.clean("link/{user}"), (1, []))

    def test_an_absent_folder_is_nothing_to_speak_of(self) -> None:
        self.assertEqual(self.clean("Maildir"), (0, []))
        self.assertEqual(self.clean("{domain}/{user}"), (0, []))

    def test_it_stops_between_two_folders(self) -> None:
        old = self.file(self.maildir("amy") / "tmp" / "old", 99)
        stopping = threading.Event()
        stopping.set()
        self.assertEqual(remove_leftovers(PathTemplate(f"{self.root}/{{user}}"), NOW, stopping), (0, []))
        self.assertTrue(old.exists())

    async def test_the_start_cleans_once_and_says_so_in_one_line(self) -> None:
        for name in ("1", "2"):
            self.file(self.maildir(f"amy{name}") / "tmp" / "old", 24 * 365 * 99)
        backend = self.backend()
        await backend.clean()
        self.assertEqual(self.files("tmp"), [])
        self.assertEqual(self.logged(), [f"maildir: removed 2 files older than 36 hours from tmp below {self.root}"])
        self.file(self.root / "amy1" / "tmp" / "old", 24 * 365 * 99)
        await backend.clean()
        self.assertEqual(len(self.files("tmp")), 1)

    async def test_what_cannot_be_cleaned_is_one_line_and_no_hindrance(self) -> None:
        for name in ("amy", "bob"):
            self.file(self.maildir(name) / "tmp" / "old", 24 * 365 * 99)
        (self.root / "amy" / "tmp").rename(self.root / "elsewhere")
        (self.root / "amy" / "tmp").symlink_to(self.root / "elsewhere")
        backend = self.backend()
        await backend.clean()
        self.assertEqual(len(self.logged()), 2)
        self.assertIn(f"could not clean {self.root}/amy/tmp", self.logged()[1])
        self.assertFalse((self.root / "bob" / "tmp" / "old").exists())
        self.assertTrue((self.root / "elsewhere" / "old").exists())

    async def test_a_mistake_of_ours_is_logged_and_does_not_fail_the_start(self) -> None:
        self.maildir("amy")

        def scandir(descriptor: int) -> None:
            raise ZeroDivisionError

        self.patch(os, "scandir", scandir)
        await self.backend("amy").clean()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_the_first_connection_starts_it(self) -> None:
        self.file(self.maildir("amy") / "tmp" / "old", 24 * 365 * 99)
        backend = self.backend()
        self.session(backend)
        await backend.clean()
        self.assertEqual(self.files("tmp"), [])


def test_a_name_holds_nothing_that_a_maildir_reader_or_a_path_takes_apart() -> None:
    name = FileNames("ho/st:2,S\nü.example").make()
    assert name.endswith(".ho_st_2_S__.example")
    assert len(FileNames("x" * 300).make()) < 200


def test_names_are_unique() -> None:
    names = FileNames()
    assert len({names.make() for _ in range(10_000)}) == 10_000
