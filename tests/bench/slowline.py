#!/usr/bin/env python3
"""A TCP proxy that adds delay and takes no bandwidth away: slowline.py TARGET_PORT|check MILLISECONDS

Half of the delay is added each way. What arrives goes into a queue with the time at which it is due, so any amount
can be on its way at once, as on a long line; nothing is held back because something else waits. It runs as a process
of its own, so that it takes no turns from what is measured, prints its port, and ends with its standard input.
"""
import asyncio
import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

PIECE = 256 * 1024


async def carry(reader, writer, delay):
    """Hands on what comes, each piece `delay` seconds after it came."""
    queue = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def deliver():
        while True:
            due, piece = await queue.get()
            await asyncio.sleep(max(0, due - loop.time()))
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    delivery = asyncio.create_task(deliver())
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE):
            queue.put_nowait((loop.time() + delay, piece))
    queue.put_nowait((loop.time() + delay, b""))
    with contextlib.suppress(OSError):
        await delivery


async def serve(target, delay):
    async def connected(reader, writer):
        # A connection takes a round trip to make, too.
        await asyncio.sleep(2 * delay)
        try:
            onwards = await asyncio.open_connection("127.0.0.1", target, limit=PIECE)
        except OSError:
            writer.close()
            return
        for stream in (writer, onwards[1]):
            stream.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(carry(reader, onwards[1], delay), carry(onwards[0], writer, delay))
        for stream in (writer, onwards[1]):
            stream.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=PIECE)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Standard input ends when whoever started this does.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)


class Proxy:
    """A running proxy. `with Proxy(port, 40) as proxy: … proxy.port`"""

    def __init__(self, target, milliseconds):
        self.process = subprocess.Popen(
            [sys.executable, pathlib.Path(__file__), str(target), str(milliseconds)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.port = int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def round_trip(milliseconds, times=20):
    """The round trip through a proxy that adds so many milliseconds, measured: median, in milliseconds."""
    with socket.create_server(("127.0.0.1", 0)) as echo:
        def answer():
            connection, _ = echo.accept()
            with connection:
                while piece := connection.recv(PIECE):
                    connection.sendall(piece)

        threading.Thread(target=answer, daemon=True).start()
        with Proxy(echo.getsockname()[1], milliseconds) as proxy, \
                socket.create_connection(("127.0.0.1", proxy.port)) as line:
            took = []
            for _ in range(times):
                started = time.perf_counter()
                line.sendall(b"x")
                line.recv(1)
                took.append((time.perf_counter() - started) * 1000)
            # Sixteen mebibytes at once take hardly longer: it delays and does not throttle.
            sent = bytes(16 << 20)
            started = time.perf_counter()
            threading.Thread(target=line.sendall, args=(sent,), daemon=True).start()
            left = len(sent)
            while left:
                left -= len(line.recv(PIECE))
            much = (time.perf_counter() - started) * 1000
    return sorted(took)[times // 2], much


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if sys.argv[1] == "check":
        one, much = round_trip(float(sys.argv[2]))
        print(f"one byte there and back {one:.1f} ms, 16 MiB there and back {much:.0f} ms")
    else:
        asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]) / 2000))
