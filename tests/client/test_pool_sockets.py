"""A pool over real sockets: all arrives once, and nothing is left in the reactor."""

from __future__ import annotations

from twisted.internet import defer, reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.client.pool import Pool
from smtpfw.errors import ConnectionFailed
from smtpfw.testing import RecordingBackend
from tests.client.pool_rig import CONFIG


class PoolOnSocketsTest(TestCase):
    timeout = 30

    async def _listen(self) -> None:
        self.backend = RecordingBackend()
        self.factory = SMTPServerFactory(self.backend, ServerConfig(hostname="mx.test"))
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.where = f"127.0.0.1:{self.port.getHost().port}"

    async def test_many_messages_and_loans(self) -> None:
        await self._listen()
        pool = Pool(self.where, max_connections=4, max_messages=5, config=CONFIG)

        async def step_by_step(name: str) -> None:
            client = await pool.acquire()
            await client.mail(name)
            await client.rcpt("b@b.test")
            await client.data(b"x")
            pool.release(client)

        names = [f"m{number}@a.test" for number in range(60)]
        sent = [
            pool.send_mail(name, "b@b.test", b"x") if number % 3 else defer.Deferred.fromCoroutine(step_by_step(name))
            for number, name in enumerate(names)
        ]
        await gatherResults(sent, consumeErrors=True)
        await pool.close()
        self.assertEqual(pool.open, 0)
        self.assertEqual(sorted(str(message.sender) for message in self.backend.messages), sorted(names))

    async def test_nobody_listens(self) -> None:
        await self._listen()
        await self.port.stopListening()
        pool = Pool(self.where, max_connections=3, config=CONFIG)
        sent = [pool.send_mail("a@a.test", "b@b.test", b"x") for _ in range(7)]
        for one in sent:
            await self.assertFailure(one, ConnectionFailed)
        await pool.close()

    async def test_the_end_at_once(self) -> None:
        await self._listen()
        pool = Pool(self.where, max_connections=3, config=CONFIG)
        sent = [pool.send_mail("a@a.test", "b@b.test", b"x") for _ in range(7)]
        await gatherResults(sent)
        waiting = pool.send_mail("a@a.test", "b@b.test", b"x")
        pool.abort()
        await self.assertFailure(waiting, Exception)
        await pool.close()
