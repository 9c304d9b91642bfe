"""Two mounts of one Volume: what one has closed, the other reads; nothing is ever stale."""
import contextlib
import errno
import mmap
import os
import random
import struct
import time

from harness import Failed, check
from rig import mounts, together, within


def whole(path):
    """Opens a file, and reads all of it."""
    file = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(file).st_size
        read = []
        while piece := os.read(file, 1 << 20):
            read.append(piece)
        data = b"".join(read)
        check(len(data) == size, lambda: f"{path}: fstat says {size} bytes, and {len(data)} were read")
        return data
    finally:
        os.close(file)


def put(path, data, flags=0):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        done = 0
        while done < len(data):
            done += os.write(file, data[done:])
    finally:
        os.close(file)


def first_difference(one, other):
    at = next((i for i, (a, b) in enumerate(zip(one, other)) if a != b), min(len(one), len(other)))
    return f"{len(one)} and {len(other)} bytes, different from {at} on: {one[at:at + 16]!r} / {other[at:at + 16]!r}"


class Turns:
    """Writes through one mount, then looks through the other, then the other way; and a model of it."""

    def __init__(self, a, b, seed):
        self.mounts = [str(a), str(b)]
        self.random = random.Random(seed)
        # Name -> content.
        self.model = {}
        self.counts = {}
        self.held = [{}, {}]

    def bytes(self, most=3000):
        size = self.random.choice([0, 1, 40, self.random.randrange(most), self.random.randrange(most)])
        if self.random.random() < 0.03:
            size = self.random.randrange(400_000)
        return self.random.randbytes(size)

    def name(self, there=True):
        if there and self.model:
            return self.random.choice(sorted(self.model))
        free = [n for n in (f"f{i}" for i in range(12)) if n not in self.model]
        return self.random.choice(free) if free else None

    # Each writes through the mount `at`, and changes the model.

    def write_and_close(self, at):
        name = self.name(self.random.random() < 0.8) or self.name()
        self.model[name] = self.bytes()
        put(f"{at}/{name}", self.model[name], os.O_TRUNC)

    def overwrite_in_place(self, at):
        name, data = self.name(), self.bytes()
        old = self.model[name]
        offset = self.random.randrange(len(old) + 100)
        file = os.open(f"{at}/{name}", os.O_WRONLY)
        try:
            if data:
                os.pwrite(file, data, offset)
        finally:
            os.close(file)
        if data:
            old = old.ljust(offset, b"\0")
            self.model[name] = old[:offset] + data + old[offset + len(data):]

    def rename_over(self, at):
        name = self.name(self.random.random() < 0.9) or self.name()
        data = self.bytes()
        put(f"{at}/.{name}.tmp", data, os.O_EXCL)
        os.rename(f"{at}/.{name}.tmp", f"{at}/{name}")
        self.model[name] = data

    def create_new(self, at):
        name = self.name(there=False)
        if name is None:
            return self.unlink(at)
        for mount in self.mounts:
            check(not os.path.exists(f"{mount}/{name}"), lambda: f"{mount}/{name} is there")
        self.model[name] = self.bytes()
        put(f"{at}/{name}", self.model[name], os.O_EXCL)

    def fsync_without_close(self, at):
        name = self.name()
        side = self.mounts.index(at)
        for held in self.held:
            for old in [n for n in held if n == name]:
                os.close(held.pop(old))
        file = os.open(f"{at}/{name}", os.O_RDWR)
        self.held[side][name] = file
        data = self.bytes() + b"!"
        os.pwrite(file, data, 0)
        (os.fsync if self.random.random() < 0.5 else os.fdatasync)(file)
        self.model[name] = data + self.model[name][len(data):]

    def truncate(self, at):
        name = self.name()
        size = self.random.randrange(2 * len(self.model[name]) + 10)
        os.truncate(f"{at}/{name}", size)
        self.model[name] = self.model[name][:size].ljust(size, b"\0")

    def append(self, at):
        name, data = self.name(), self.bytes(500)
        put(f"{at}/{name}", data, os.O_APPEND)
        self.model[name] += data

    def unlink(self, at):
        if len(self.model) > 3:
            name = self.name()
            os.unlink(f"{at}/{name}")
            del self.model[name]

    def unlink_and_make_again(self, at):
        name = self.name()
        os.unlink(f"{at}/{name}")
        self.model[name] = self.bytes()
        put(f"{at}/{name}", self.model[name], os.O_EXCL)

    def rename(self, at):
        old, new = self.name(), self.name(there=False) or self.name()
        os.rename(f"{at}/{old}", f"{at}/{new}")
        self.model[new] = self.model.pop(old)

    def write_through_a_map(self, at):
        name = self.name()
        if not self.model[name]:
            return
        file = os.open(f"{at}/{name}", os.O_RDWR)
        try:
            with mmap.mmap(file, 0) as area:
                start = self.random.randrange(len(area))
                data = self.random.randbytes(min(300, len(area) - start))
                area[start:start + len(data)] = data
                area.flush()
        finally:
            os.close(file)
        old = self.model[name]
        self.model[name] = old[:start] + data + old[start + len(data):]

    def steps(self):
        return [self.write_and_close, self.write_and_close, self.overwrite_in_place, self.overwrite_in_place,
                self.rename_over, self.rename_over, self.create_new, self.fsync_without_close, self.truncate,
                self.append, self.append, self.unlink, self.unlink_and_make_again, self.rename,
                self.write_through_a_map]

    def look(self, at, names, said):
        for name in names:
            want = self.model.get(name)
            try:
                got = whole(f"{at}/{name}")
            except FileNotFoundError:
                got = None
            if got != want:
                how = ("it is there and should not be" if want is None else "it is not there" if got is None
                       else first_difference(got, want))
                # Is it so for ever, or was it only late?
                time.sleep(1)
                try:
                    later = whole(f"{at}/{name}") == want
                except FileNotFoundError:
                    later = want is None
                raise Failed(f"{said}, then {at}/{name} is stale: {how}; a second later it is "
                             + ("right" if later else "still wrong"))
            if want is not None:
                size = os.stat(f"{at}/{name}").st_size
                check(size == len(want), lambda: f"{said}, then stat says {size} and not {len(want)} bytes")

    def run(self, rounds):
        put(f"{self.mounts[0]}/f0", b"first")
        self.model["f0"] = b"first"
        for number in range(rounds):
            at, other = self.random.sample(self.mounts, 2)
            step = self.random.choice(self.steps()) if self.model else self.create_new
            before = dict(self.model)
            step(at)
            self.counts[step.__name__] = self.counts.get(step.__name__, 0) + 1
            changed = [n for n in {*before, *self.model} if before.get(n) != self.model.get(n)]
            said = f"round {number}: {step.__name__} of {changed} at {at[-1]}"
            self.look(other, changed, said)
            if self.random.random() < 0.2:
                self.look(at, changed, said)
            if self.random.random() < 0.05:
                for mount in (other, at):
                    there = sorted(n for n in os.listdir(mount))
                    check(there == sorted(self.model), lambda: f"{said}: {mount} lists {there}, not {sorted(self.model)}")
            if self.random.random() < 0.3:
                # What is read stays in the caches, to be stale at the next turn.
                self.look(other, [n for n in [self.name()] if n], f"{said}, a look at another")
            if self.random.random() < 0.1:
                for held in self.held:
                    while held:
                        os.close(held.popitem()[1])
        return self.counts


def test_what_one_mount_has_closed_the_other_reads(bench):
    a, b = mounts(bench, "a", "b")
    rounds = 20_000 if bench.long else 500
    started = time.monotonic()
    within(7200 if bench.long else 120, Turns(a.path, b.path, bench.seed).run, rounds)
    bench.note(f"{rounds} rounds, {(time.monotonic() - started) / rounds * 1000:.1f} ms each")


# ---- readers that run freely beside a writer ---------------------------------------------------------------


class Free:
    """One writer and some readers, with a number in shared memory: what the writer has published."""

    def __init__(self, here, others, seconds, seed):
        self.here, self.others, self.seconds, self.seed = str(here), [str(o) for o in others], seconds, seed
        self.published = mmap.mmap(-1, 4096)

    def write(self):
        chance = random.Random(self.seed)
        until, number = time.monotonic() + self.seconds, 0
        put(f"{self.here}/small", struct.pack("<Q", 0))
        while time.monotonic() < until:
            number += 1
            small = struct.pack("<Q", number)
            way = chance.randrange(4)
            if way == 0:
                put(f"{self.here}/small", small)
            elif way == 1:
                put(f"{self.here}/small.tmp", small, os.O_TRUNC)
                os.rename(f"{self.here}/small.tmp", f"{self.here}/small")
            elif way == 2:
                file = os.open(f"{self.here}/small", os.O_WRONLY)
                os.pwrite(file, small, 0)
                os.fsync(file)
                os.close(file)
            else:
                os.unlink(f"{self.here}/small")
                put(f"{self.here}/small", small)
            put(f"{self.here}/large.tmp", small * 20_000, os.O_TRUNC)
            os.rename(f"{self.here}/large.tmp", f"{self.here}/large")
            put(f"{self.here}/n{number}", b"")
            if number > 1:
                os.unlink(f"{self.here}/n{number - 1}")
            self.published[0:8] = small
        self.published[8:9] = b"!"
        return number

    def read(self, at):
        reads, absent = 0, 0
        while not self.published[8]:
            (least,) = struct.unpack("<Q", self.published[0:8])
            if least == 0:
                continue
            reads += 1
            try:
                data = whole(f"{at}/small")
            except FileNotFoundError:
                # Between unlink and the next close there is none; that is no older state.
                absent += 1
                continue
            if len(data) == 8:
                (seen,) = struct.unpack("<Q", data)
                check(seen >= least, lambda: f"{at}: small is at {seen} after {least} was closed elsewhere")
            else:
                check(data == b"", lambda: f"{at}: small has {len(data)} bytes: {data[:40]!r}")
            (least,) = struct.unpack("<Q", self.published[0:8])
            try:
                data = whole(f"{at}/large")
            except OSError as error:
                check(error.errno == errno.ESTALE, lambda: f"{at}: large: {error}")
                continue
            check(len(data) == 160_000, lambda: f"{at}: large has {len(data)} bytes")
            seen = struct.unpack_from("<Q", data)[0]
            check(data == data[:8] * 20_000, lambda: f"{at}: large is torn: {sorted(set(struct.unpack('<20000Q', data)))}")
            check(seen >= least, lambda: f"{at}: large is at {seen} after {least} was closed elsewhere")
            if reads % 4 == 0:
                (least,) = struct.unpack("<Q", self.published[0:8])
                check(not os.path.exists(f"{at}/n{least - 1}"), lambda: f"{at}: n{least - 1} is there after it was removed")
        return reads


def test_no_read_is_stale_beside_a_writer(bench):
    a, b = mounts(bench, "a", "b")
    seconds = 300 if bench.long else 8
    free = Free(a.path, [b.path], seconds, bench.seed)
    with contextlib.closing(free.published):
        versions, *reads = together(seconds + 60, (free.write,), (free.read, str(b.path)), (free.read, str(b.path)))
    bench.note(f"{versions} versions, {sum(reads)} reads")
    check(versions > 20 and sum(reads) > 50, f"too little happened: {versions} versions, {reads} reads")


# ---- fsx of two mounts -------------------------------------------------------------------------------------


class TakingTurns:
    """One file, as fsx treats it, but through two mounts in turn; each turn ends with a close."""

    MOST = 300_000

    def __init__(self, a, b, seed):
        self.paths = [f"{a}/turns", f"{b}/turns"]
        self.random = random.Random(seed)
        self.model = bytearray()
        self.log = []

    def range(self, beyond=0):
        start = self.random.randrange(len(self.model) + beyond + 1)
        return start, self.random.choice([1, 100, 4096, 5000, 65536, self.random.randrange(1, 65536)])

    def change(self, start, data):
        if start > len(self.model):
            self.model += bytes(start - len(self.model))
        self.model[start:start + len(data)] = data

    def write(self, file):
        start, length = self.range(beyond=20_000)
        length = min(length, self.MOST - start)
        if length > 0:
            data = self.random.randbytes(length)
            self.log.append(f"write {start} {length}")
            check(os.pwrite(file, data, start) == length, "a short write")
            self.change(start, data)

    def read(self, file):
        start, length = self.range()
        self.log.append(f"read {start} {length}")
        self.same(os.pread(file, length, start), bytes(self.model[start:start + length]), start)

    def truncate(self, file):
        size = self.random.randrange(min(self.MOST, len(self.model) * 3 // 2 + 5000))
        self.log.append(f"truncate {size}")
        os.ftruncate(file, size)
        if size < len(self.model):
            del self.model[size:]
        else:
            self.model += bytes(size - len(self.model))

    def append(self, file):
        data = self.random.randbytes(self.random.randrange(1, 9000))
        if len(self.model) + len(data) < self.MOST:
            self.log.append(f"append {len(data)}")
            other = os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_APPEND)
            os.write(other, data)
            os.close(other)
            self.model += data

    def map_read(self, file):
        if self.model:
            self.log.append("map and read")
            with mmap.mmap(file, 0, prot=mmap.PROT_READ) as area:
                self.same(area[:], bytes(self.model), 0)

    def map_write(self, file):
        if self.model:
            start, length = self.range()
            with mmap.mmap(file, 0) as area:
                data = self.random.randbytes(max(0, min(length, len(area) - start)))
                self.log.append(f"map and write {start} {len(data)}")
                area[start:start + len(data)] = data
                if self.random.random() < 0.5:
                    area.flush()
            self.change(start, data)

    def sync(self, file):
        self.log.append("fsync")
        os.fsync(file)

    def same(self, got, want, start):
        check(got == want, lambda: f"from {start}: {first_difference(got, want)}\nlast steps: {self.log[-25:]}")

    def run(self, seconds):
        until, turns = time.monotonic() + seconds, 0
        put(self.paths[0], b"")
        steps = [self.write] * 5 + [self.read] * 3 + [self.truncate, self.append, self.map_read, self.map_write,
                                                     self.map_write, self.sync]
        while time.monotonic() < until:
            turns += 1
            here, there = self.random.sample(self.paths, 2)
            self.log.append(f"open in {here[-7]}")
            file = os.open(here, os.O_RDWR)
            for _ in range(self.random.randrange(1, 12)):
                self.random.choice(steps)(file)
            self.log.append("close")
            os.close(file)
            for path in (there, here) if self.random.random() < 0.5 else (there,):
                self.log.append(f"look in {path[-7]}")
                self.same(whole(path), bytes(self.model), 0)
        return turns


def test_two_mounts_take_turns_with_one_file(bench):
    a, b = mounts(bench, "a", "b")
    seconds = 900 if bench.long else 20
    turns = within(seconds + 60, TakingTurns(a.path, b.path, bench.seed).run, seconds)
    bench.note(f"{turns} turns")


# ---- appending ---------------------------------------------------------------------------------------------


def append_lines(path, who, lines, seed, keeps_open):
    """Appends lines, each in one write; they are closed one by one, or a few at a time."""
    chance = random.Random(seed)
    file, left = None, 0
    for number in range(lines):
        if file is None:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            left = chance.randrange(1, 8) if keeps_open else 1
        line = f"{who} {number} {'x' * chance.randrange(200)} {who} {number}\n".encode()
        check(os.write(file, line) == len(line), "a short write")
        left -= 1
        if left == 0:
            os.close(file)
            file = None
    if file is not None:
        os.close(file)


def append_from_both(bench, keeps_open):
    a, b = mounts(bench, "a", "b")
    lines = 2000 if bench.long else 100
    writers = [(mount, f"w{number}") for number in range(3) for mount in (a, b)]
    together(1200 if bench.long else 120,
             *((append_lines, str(mount / "log"), f"{who}{mount.name}", lines, bench.seed + i, keeps_open)
               for i, (mount, who) in enumerate(writers)))
    for mount in (a, b):
        data = within(20, whole, str(mount / "log")).decode()
        seen = {}
        for line in data.splitlines():
            words = line.split()
            check(len(words) in (4, 5) and words[:2] == words[-2:], lambda: f"{mount}: a torn line: {line[:300]!r}")
            before = seen.get(words[0], -1)
            check(int(words[1]) == before + 1, lambda: f"{mount}: {words[0]} has {words[1]} after {before}")
            seen[words[0]] = int(words[1])
        want = {f"{who}{of.name}": lines - 1 for of, who in writers}
        check(seen == want, lambda: f"{mount}: the last lines are {seen}, not {want}")
    bench.note(f"{lines * len(writers)} lines")


def test_no_line_that_was_appended_is_lost_or_torn(bench):
    append_from_both(bench, keeps_open=False)


def test_no_line_is_lost_when_several_are_appended_before_a_close(bench):
    append_from_both(bench, keeps_open=True)
