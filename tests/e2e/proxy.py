"""A bad network: a proxy between a machine and the service that cuts, delays and repeats."""
import contextlib
import http.client
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PASSED_ON = {"authorization", "content-type", "content-length", "range", "accept", "last-event-id"}


class Proxy:
    """What a machine takes for the service. `mode` says what becomes of answers:

    - `good`: they come as they are;
    - `cut`: the connection ends somewhere in the answer, or before it;
    - `delay`: they come `seconds` later;
    - `repeat`: the service hears each request twice, and each event of a stream comes twice;
    - `mixed`: one of these, by chance.
    """

    def __init__(self, bench, service):
        self.service, self.mode, self.seconds = service, "good", 3.0
        self.counts = {}
        self.random = random.Random(bench.random.randrange(2**32))
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        bench.cleanups.append(self.close)

    @property
    def token(self):
        return self.service.token

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def choose(self):
        with self.lock:
            mode = self.mode
            if mode == "mixed":
                mode = self.random.choice(["good", "good", "cut", "delay", "repeat"])
            self.counts[mode] = self.counts.get(mode, 0) + 1
            return mode, self.random.random()

    def handler(proxy):  # noqa: N805 - the handler has a self of its own
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def body(self):
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                pieces = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)

            def answer(self):
                with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                    return self.pass_on()
                self.close_connection = True

            def ask(self, body):
                to = urlsplit(proxy.service.url)
                connection = http.client.HTTPConnection(to.hostname, to.port, timeout=300)
                headers = {name: value for name, value in self.headers.items() if name.lower() in PASSED_ON}
                headers.pop("Content-Length", None)
                connection.request(self.command, self.path, body or None, headers)
                return connection, connection.getresponse()

            def pass_on(self):
                body = self.body()
                mode, chance = proxy.choose()
                if mode == "cut" and chance < 0.2:
                    # The request never arrives.
                    self.close_connection = True
                    return
                if mode == "repeat":
                    first, answer = self.ask(body)
                    if "event-stream" not in answer.headers.get("Content-Type", ""):
                        answer.read()
                    first.close()
                connection, answer = self.ask(body)
                if mode == "delay":
                    time.sleep(proxy.seconds)
                if mode == "cut" and chance < 0.5:
                    # It was done, and nobody hears of it.
                    answer.read(1)
                    connection.close()
                    self.close_connection = True
                    return
                stream = "event-stream" in answer.headers.get("Content-Type", "")
                if stream:
                    self.stream(answer, mode, chance)
                else:
                    self.whole(answer, mode, chance)
                connection.close()

            def head(self, answer, **more):
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                for name, value in more.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()

            def whole(self, answer, mode, chance):
                data = answer.read()
                self.head(answer, Content_Length=str(len(data)))
                if mode == "cut":
                    self.wfile.write(data[:int(len(data) * chance)])
                    self.close_connection = True
                else:
                    self.wfile.write(data)

            def stream(self, answer, mode, chance):
                self.head(answer, Transfer_Encoding="chunked")
                left = int(400 * chance)
                waiting = b""
                # What is told while a stream is open follows the mode of that moment.
                while piece := answer.read1(65536):
                    now = mode if proxy.mode == "mixed" else proxy.mode
                    if now == "repeat":
                        waiting += piece
                        whole, end, waiting = waiting.rpartition(b"\n\n")
                        events = (whole + end).split(b"\n\n")
                        piece = b"".join(2 * (event + b"\n\n") for event in events if event)
                        if not piece:
                            continue
                    else:
                        piece, waiting = waiting + piece, b""
                    if now == "delay":
                        time.sleep(proxy.seconds)
                    if now == "cut":
                        left -= len(piece)
                        piece = piece[:max(1, len(piece) + min(0, left))]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.flush()
                    if now == "cut" and left < 0:
                        self.close_connection = True
                        return
                self.wfile.write(b"0\r\n\r\n")

        for method in ("GET", "POST", "PUT", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.answer)
        return Handler
