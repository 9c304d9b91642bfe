"""A plain JSON-RPC client of `s0-sync-lsp --stdio`, which knows what LSP says and nothing more."""
import contextlib
import json
import pathlib
import subprocess
import threading
import time

from harness import BIN, PATIENCE, check


class Refused(AssertionError):
    """The server answered a request with an error."""


class Client:
    """One editor. Requests of the server are answered as `answers` says, with null otherwise."""

    def __init__(self, machine, folders, ours=False, options=None, initialize=True):
        self.answers, self.notes, self.asked = {}, [], []
        self.diagnostics, self.states, self.hunks = {}, {}, {}
        self.number, self.waiting, self.lock = 0, {}, threading.Condition()
        program = str(pathlib.Path(BIN).with_name("s0-sync-lsp"))
        self.process = subprocess.Popen([program, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, env=machine.environment())
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        if initialize:
            experimental = {"s0Sync": {"version": 1}} if ours else {}
            self.capabilities = self.ask("initialize", {
                "processId": None, "rootUri": None, "initializationOptions": options,
                "workspaceFolders": [{"uri": uri(folder), "name": pathlib.Path(folder).name} for folder in folders],
                "capabilities": {"experimental": experimental, "window": {"workDoneProgress": True}, "general": {"positionEncodings": ["utf-16"]},
                                 "workspace": {"codeLens": {"refreshSupport": True}}}})["capabilities"]
            self.tell("initialized", {})

    def read(self):
        out = self.process.stdout
        while True:
            length = None
            while True:
                line = out.readline()
                if not line:
                    with self.lock:
                        self.waiting = None
                        self.lock.notify_all()
                    return
                if line == b"\r\n":
                    break
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            message = json.loads(out.read(length))
            with self.lock:
                self.take(message)
                self.lock.notify_all()

    def take(self, message):
        if "method" not in message:
            self.waiting[message["id"]] = message
            return
        method, params = message["method"], message.get("params")
        if "id" in message:
            self.asked.append((method, params))
            answer = self.answers.get(method)
            # A test may have closed the server's input meanwhile.
            with contextlib.suppress(ValueError, OSError):
                self.send({"jsonrpc": "2.0", "id": message["id"],
                           "result": answer(params) if callable(answer) else answer})
            return
        self.notes.append((time.monotonic(), method, params))
        if method == "textDocument/publishDiagnostics":
            self.diagnostics[params["uri"]] = params["diagnostics"]
        elif method == "s0-sync/didChangeState":
            self.states[params["folder"]] = params
        elif method == "s0-sync/didChangeHunks":
            self.hunks[params["uri"]] = params

    def send(self, message):
        body = json.dumps(message).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def tell(self, method, params):
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def begin(self, method, params):
        """Sends a request and returns its number."""
        with self.lock:
            self.number += 1
            number = self.number
        self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return number

    def end(self, number, timeout=30, raw=False):
        """Waits for the answer to a request."""
        deadline = time.monotonic() + timeout * PATIENCE
        with self.lock:
            while self.waiting is not None and number not in self.waiting:
                check(self.lock.wait(deadline - time.monotonic()), f"request {number} is not answered")
            check(self.waiting is not None, f"the server ended before it answered request {number}")
            message = self.waiting.pop(number)
        if raw:
            return message
        if "error" in message:
            raise Refused(message["error"]["message"])
        return message.get("result")

    def ask(self, method, params, timeout=30):
        return self.end(self.begin(method, params), timeout)

    def command(self, name, argument, timeout=30):
        return self.ask("workspace/executeCommand", {"command": name, "arguments": [argument]}, timeout)

    def open(self, path):
        self.tell("textDocument/didOpen", {"textDocument": {
            "uri": uri(path), "languageId": "plaintext", "version": 1, "text": pathlib.Path(path).read_text()}})

    def edit(self, path, version, text):
        """The whole text of an open document is another one."""
        self.tell("textDocument/didChange", {"textDocument": {"uri": uri(path), "version": version},
                                             "contentChanges": [{"text": text}]})

    def saved(self, path):
        self.tell("textDocument/didSave", {"textDocument": {"uri": uri(path)}})

    def actions(self, path, line=0):
        """Code actions at a line, by their titles."""
        at = {"line": line, "character": 0}
        found = self.ask("textDocument/codeAction", {
            "textDocument": {"uri": uri(path)}, "range": {"start": at, "end": at},
            "context": {"diagnostics": self.diagnostics.get(uri(path), [])}})
        return {action["title"]: action for action in found or []}

    def run(self, action):
        """What an editor does when an action is chosen."""
        command = action["command"]
        return self.command(command["command"], command["arguments"][0])

    def lenses(self, path):
        return self.ask("textDocument/codeLens", {"textDocument": {"uri": uri(path)}}) or []

    def quit(self):
        """Ends it as LSP says. Gives its exit code."""
        self.ask("shutdown", None)
        self.tell("exit", None)
        code = self.process.wait(10 * PATIENCE)
        return code


def uri(path):
    return pathlib.Path(path).resolve().as_uri()
