#!/usr/bin/env python3
"""Writes the test vectors of SPEC.md section 10, from SPEC.md alone.

Nothing here uses the Go code: an archive that our reader accepts and this
script wrote shows that document and code agree. Run it in its own folder; the
result is committed, so the tests of the vectors need no Python.

Beside each archive lies a text file. Of a sound one it lists the frames and the
files. Of a bad one, v1-bad-*.xb, it says in a comment what is wrong, and then
words that our reader's complaint must hold. All checksums of a bad one are
right unless they are what is wrong.

v1-age.xb is v1-three-files.xb encrypted by the age command, once, for the key in
v1-age-test-key.txt: age encryption is not the same twice.
"""
import hashlib
import json
import struct


def crc32c(*parts):
    crc = 0xFFFFFFFF
    for part in parts:
        for byte in part:
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


NAMES = ["", "FILE", "DATA", "HOLE", "CLOSE", "REDO", "MANIFEST", "INDEX", "END", "ESTIMATE"]
FILE, DATA, HOLE, CLOSE, REDO, MANIFEST, INDEX, END, ESTIMATE = range(1, 10)


def zstd(*blocks):
    """A zstd frame (RFC 8878) of one segment: bytes are raw blocks, a pair of
    byte and count is a run. Returns the frame and its content."""
    content = b"".join(b if isinstance(b, bytes) else b[0] * b[1] for b in blocks)
    out = bytes.fromhex("28B52FFD 60") + struct.pack("<H", len(content) - 256)
    for i, b in enumerate(blocks):
        run = not isinstance(b, bytes)
        size, data = (b[1], b[0]) if run else (len(b), b)
        out += struct.pack("<I", size << 3 | run << 1 | (i == len(blocks) - 1))[:3] + data
    return out, content


class Archive:
    """Writes frames as they are asked for, right or wrong."""

    def __init__(self, number, version=1, flags=0):
        self.id = bytes([number]) + bytes(15)
        head = bytes([0x89]) + b"XBA\r\n\x1a\n" + struct.pack(">HH", version, flags) + self.id
        self.out = head + struct.pack(">I", crc32c(head))
        self.digest = hashlib.sha256(self.out)
        self.seq = 0
        self.manifest = self.index = self.entries = 0
        self.places = []
        self.sums = [0, 0, 0, 0]  # files, data, holes, redo
        self.listing = []

    def frame(self, kind, file=0, pos=0, payload=b"", hole=0, flags=0, raw=None, codec=0,
              raw_length=None, at=None):
        """raw is what a compressed payload decodes to."""
        length = hole or len(payload if raw is None else raw)
        if raw_length is not None:
            length = raw_length
        head = b"XBF1" + struct.pack(
            ">BBBBQIIQIII", kind, flags, 0 if raw is None else codec or 1, 0,
            self.seq if at is None else at, file, length, pos, len(payload),
            crc32c(payload) if payload else 0, 0 if raw is None else crc32c(raw))
        head += struct.pack(">I", crc32c(self.id, head))
        if kind != END:
            self.digest.update(head)
        self.seq += 1
        if kind == MANIFEST:
            self.manifest = self.manifest or len(self.out)
        elif kind == INDEX:
            self.index = len(self.out)
        elif kind <= REDO:
            self.places.append((len(self.out), file))
        self.out += head + payload
        for i, counted in enumerate((FILE, DATA, HOLE, REDO)):
            if kind == counted:
                self.sums[i] += 1 if kind == FILE else length
        if kind in (FILE, DATA, HOLE, CLOSE, REDO, INDEX, ESTIMATE):
            path = json.loads(payload)["path"] if kind == FILE else ""
            self.listing.append(f"{NAMES[kind]} {file} {pos} {0 if kind == CLOSE else length} {path}".strip())

    def file(self, no, path, text, hole=0, kind="file"):
        """A file of one DATA frame and perhaps a hole behind it; its entry."""
        size = len(text) + hole
        entry = {"no": no, "path": path, "kind": kind, "size": size, "mode": 0o640}
        self.frame(FILE, no, payload=json.dumps({"path": path, "kind": kind}).encode())
        if text:
            self.frame(DATA, no, 0, text)
        if hole:
            self.frame(HOLE, no, len(text), hole=hole)
        self.frame(CLOSE, no, size)
        return entry

    def write_index(self, change=lambda places: places):
        places, self.places = change(self.places), []
        payload = struct.pack(">Q", self.index) + b"".join(struct.pack(">QI", *p) for p in places)
        self.frame(INDEX, pos=self.entries, payload=payload, flags=1)
        self.entries += len(places)

    def write_manifest(self, entries, cut=100, **more):
        head = json.dumps({"format": 1, "archive_id": self.id.hex(), "tool": "vector 1",
                           "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:01Z", **more})
        text = head[:-1] + ',"files":[\n' + ",\n".join(json.dumps(e) for e in entries) + "\n]}\n"
        json.loads(text)
        # In two frames, cut at an arbitrary byte.
        self.frame(MANIFEST, pos=0, payload=text[:cut].encode())
        self.frame(MANIFEST, pos=cut, payload=text[cut:].encode())
        self.listing += [f"{e['kind']} {e['path']} {e['size']}" for e in entries]

    def end(self, digest=None, frames=0):
        self.frame(END, payload=struct.pack(
            ">QQQQQQQ", self.seq + frames, *self.sums, self.manifest, self.index) + (digest or self.digest.digest()))

    def close(self, entries, **more):
        self.write_index()
        self.write_manifest(entries, **more)
        self.end()
        return self


def directory(path):
    return {"path": path, "kind": "dir", "size": 0, "mode": 0o750}


def three_files():
    a = Archive(1)
    entries = [directory("db")]
    entries.append(a.file(1, "db/f0", b"first file"))
    entries.append(a.file(2, "db/f1", b"second, with a hole", 4096))
    a.write_index()
    entries.append(a.file(3, "db/f2", b""))
    # A type that no version knows yet, marked as skippable: to be ignored.
    a.frame(200, payload=b"from the future", flags=1)
    return a.close(entries)


def estimate():
    a = Archive(5)
    # Advice: 10 + 4115 bytes, of which 8192 on the writer's disk.
    a.frame(ESTIMATE, payload=struct.pack(">QQ", 4125, 8192), flags=1)
    entries = [directory("db"), a.file(1, "db/f0", b"first file"), a.file(2, "db/f1", b"second, with a hole", 4096)]
    return a.close(entries)


def left_out(space_id, **more):
    return {"path": f"db/out{space_id}.ibd", "kind": "left-out", "size": 0, "mode": 0, "space": {"id": space_id}, **more}


def partial(*entries):
    """A backup of some tables: two others are left out, of one page 0 was not
    written yet."""
    fresh = left_out(9)
    fresh["space"] = {"id": 0, "rebuild": True}
    return backup(change=lambda all: all.extend([left_out(7), fresh, *entries]), filter={"tables": "^db[.]t$"})


def backup(redo=None, change=lambda entries: None, server=None, **more):
    """System tablespace and one table, both still to be built from redo; two
    files at once, sent from the end; a superseded copy; keys to be ignored."""
    a = Archive(2)
    space = {"id": 0, "flags": 21, "page_size": 16384, "rebuild": True}
    entries = [directory("db")]
    for no, path, kind in ((1, "ibdata1", "system"), (2, "db/t.ibd", "tablespace")):
        a.frame(FILE, no, payload=json.dumps({"path": path, "kind": kind, "space": space, "later": 1}).encode())
        entries.append({"no": no, "path": path, "kind": kind, "size": 16384, "mode": 0o660,
                        "mtime": "2026-01-01T00:00:00Z", "space": dict(space), "later": [1]})
    a.frame(REDO, pos=1000, payload=b"0123456789")
    a.frame(HOLE, 2, 8192, hole=8192)
    a.frame(HOLE, 1, 0, hole=16384)
    a.frame(HOLE, 2, 0, hole=8192)
    a.frame(REDO, pos=1010, payload=b"abcdef")
    a.frame(CLOSE, 2, 16384)
    a.frame(CLOSE, 1, 16384)
    a.file(3, "db/dropped.MYD", b"gone")
    log = {"format": "mariadb-10.8", "checkpoint_lsn": 1000, "checkpoint_end_lsn": 1010, "end_lsn": 1016}
    log.update(redo or {})
    change(entries)
    return a.close(entries, discarded_files=1, backup={
        "type": "full-backuped", "redo": log, **more,
        "server": {"dialect": "mariadb", "version": "10.11.6-MariaDB", "innodb_page_size": 16384, **(server or {})}})


def mysql(redo=None, change=lambda entries: None, dialect="mysql", idle=False):
    """A backup of a MySQL server: LSNs count the blocks of its log, of which 12
    and 4 of 512 bytes are no redo. The redo goes on in the next block. One that
    does nothing has none after its checkpoint."""
    a = Archive(6)
    space = {"id": 0, "flags": 0x4800, "page_size": 16384, "rebuild": True}
    a.frame(FILE, 1, payload=json.dumps({"path": "ibdata1", "kind": "system", "space": space, "dialect": "mysql"}).encode())
    position = lambda lsn: lsn // 512 * 496 + lsn % 512 - 12
    if not idle:
        a.frame(REDO, pos=position(10740), payload=b"0123456789")
    a.frame(HOLE, 1, 0, hole=16384)
    if not idle:
        a.frame(REDO, pos=position(10740) + 10, payload=b"abcdef")
    a.frame(CLOSE, 1, 16384)
    entries = [{"no": 1, "path": "ibdata1", "kind": "system", "size": 16384, "mode": 0o640, "space": space}]
    entries.append(a.file(2, "mysql/t.MYD", b"a row"))
    log = {"format": "mysql-8.0.30", "checkpoint_lsn": 10740, "checkpoint_end_lsn": 10740, "end_lsn": 10772}
    log.update(redo or {})
    change(entries)
    return a.close([directory("mysql"), *entries], backup={
        "type": "full", "redo": log, "gtid": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5",
        "server": {"dialect": dialect, "version": "9.7.4", "innodb_page_size": 16384}})


def compressed():
    a = Archive(3)
    payload, raw = zstd(b"a run: ", (b"x", 500), b", and its end")
    a.frame(FILE, 1, payload=b'{"path":"run","kind":"file"}')
    a.frame(DATA, 1, 0, payload, raw=raw)
    a.frame(CLOSE, 1, len(raw))
    return a.close([{"no": 1, "path": "run", "kind": "file", "size": len(raw), "mode": 0o600}])


def one_frame(**frame):
    """One file of one DATA frame, the frame as asked for."""
    a = Archive(4)
    size = frame.pop("size", 500)
    a.frame(FILE, 1, payload=b'{"path":"f","kind":"file"}')
    a.frame(**{"kind": DATA, "file": 1, **frame})
    a.frame(CLOSE, 1, size)
    return a.close([{"no": 1, "path": "f", "kind": "file", "size": size, "mode": 0o600}])


def with_entry(**change):
    """Two files and a directory; the entry of the second is changed."""
    a = Archive(5)
    entries = [directory("d"), a.file(1, "d/a", b"one"), a.file(2, "d/b", b"other")]
    entries[2].update(change)
    return a.close(entries)


def with_index(change):
    a = Archive(6)
    entries = [a.file(1, "a", b"one"), a.file(2, "b", b"other")]
    a.write_index(change)
    a.write_manifest(entries)
    a.end()
    return a


def tampered(change, **end):
    """One file; change sees the archive before its manifest."""
    a = Archive(7)
    entries = [a.file(1, "a", b"one")]
    change(a)
    a.write_index()
    a.write_manifest(entries)
    a.end(**end)
    return a


def of(out):
    """Bytes that no Archive made."""
    a = Archive(0)
    a.out = out
    return a


def same_space(entries):
    for e in entries[1:]:
        e["space"].pop("rebuild")


def bad():
    """name: (what is wrong, words of the complaint, archive)"""
    sound = three_files().out
    yield "cut", "Cut within the END frame.", "ends too early", of(sound[:-1])
    yield "cut-between-frames", "Cut where the END frame should begin.", "ends too early", of(sound[:-136])
    yield "trailing", "One byte follows the END frame.", "follows the end frame", of(sound + b"\0")
    yield "joined", "Two archives, one after the other.", "follows the end frame", of(sound + sound)
    yield "payload", "One bit of a payload is flipped.", "payload checksum", of(
        sound.replace(b"first file", b"first fild"))
    yield "version", "Of a later version.", "archive version 2", Archive(1, version=2).close([])
    yield "flags", "An archive flag that no version knows.", "archive flags 0x0001", Archive(1, flags=1).close([])
    yield "type", "A frame of unknown type without the skippable flag.", "type 201", tampered(
        lambda a: a.frame(201, payload=b"x"))
    yield "skippable", "A CLOSE frame marked as skippable.", "marked as skippable", tampered(
        lambda a: a.frame(CLOSE, 1, 3, flags=1))
    yield "sequence", "A sequence number is left out.", "sequence number", tampered(
        lambda a: a.frame(200, payload=b"x", flags=1, at=99))
    yield "gap", "A file lacks its byte 10.", "never arrived", one_frame(payload=b"x" * 489, pos=11)
    yield "overlap", "A byte of a file arrives twice.", "a second time", tampered(
        lambda a: [a.frame(FILE, 2, payload=b'{"path":"b","kind":"file"}'), a.frame(DATA, 2, 0, b"abc"),
                   a.frame(DATA, 2, 2, b"c"), a.frame(CLOSE, 2, 3)])
    yield "closed", "Data for a file that is closed.", "not open", tampered(lambda a: a.frame(DATA, 1, 3, b"x"))
    yield "open", "A file that is never closed.", "never closed", tampered(
        lambda a: a.frame(FILE, 2, payload=b'{"path":"b","kind":"file"}'))
    yield "huge", "A file of more than 2^50 bytes.", "over the limit", one_frame(pos=1 << 63, payload=b"x" * 500)
    yield "provisional-path", "A FILE frame whose path leaves the target.", "element", tampered(
        lambda a: a.file(2, "a/../../b", b"x"))
    yield "late", "A frame of a file after the manifest.", "after the manifest", late()
    yield "no-manifest", "No manifest.", "without a manifest", no_manifest()
    yield "totals", "The END frame counts one frame too many.", "totals", tampered(lambda a: None, frames=1)
    yield "digest", "The digest is another one.", "digest", tampered(lambda a: None, digest=bytes(32))
    yield "index-entry", "An index entry names another file.", "INDEX frame", with_index(
        lambda p: p[:-1] + [(p[-1][0], 1)])
    yield "index-outside", "An index entry points behind the archive.", "INDEX frame", with_index(
        lambda p: p[:-1] + [(1 << 62, 2)])
    yield "index-short", "The index leaves out a frame.", "INDEX frame", with_index(lambda p: p[1:])
    yield "index-loop", "The index lists a frame twice.", "INDEX frame", with_index(lambda p: p[:-1] + p[:1])
    yield "path", "A path leaves the target.", "element", with_entry(path="../b")
    yield "path-absolute", "A path is absolute.", "absolute", with_entry(path="/dev/sda")
    yield "path-twice", "Two files have the same path.", "same path", with_entry(path="d/a")
    yield "kind", "A file of a kind that no version knows.", "kind", with_entry(kind="socket")
    yield "number", "An entry names a file that never arrived.", "arrive", with_entry(no=3)
    yield "number-twice", "Two entries name the same file.", "number 1", with_entry(no=1, size=3)
    yield "size", "An entry says another size.", "5 bytes arrived", with_entry(size=6)
    yield "id", "The manifest is that of another archive.", "archive", manifest_of_another()
    yield "redo-begin", "The manifest's redo begins elsewhere.", "redo from LSN 999", backup({"checkpoint_lsn": 999})
    yield "redo-end", "The manifest's redo ends elsewhere.", "redo from LSN 1000 to 1017", backup({"end_lsn": 1017})
    yield "redo-format", "Redo of an unknown format.", "redo format", backup({"format": "mysql-30"})
    yield "redo-checkpoint", "The FILE_CHECKPOINT lies behind the redo.", "FILE_CHECKPOINT", backup({"checkpoint_end_lsn": 1016})
    yield "mysql-redo-end", "Redo of MySQL that ends elsewhere.", "redo from LSN 10740 to 10773", mysql({"end_lsn": 10773})
    yield "mysql-redo-missing", "Redo of MySQL that is not there.", "none arrived", mysql(idle=True)
    yield "mysql-redo-header", "Redo of MySQL that ends in the header of a block.", "no redo", mysql({"end_lsn": 10757})
    yield "mysql-checkpoint", "The checkpoint of MySQL ends behind its start.", "checkpoint_end_lsn", mysql({"checkpoint_end_lsn": 10741})
    yield "mysql-dialect", "Redo of MySQL of another server.", "redo format", mysql(dialect="mariadb")
    yield "mysql-identity", "The identity of the MySQL server.", "auto.cnf", mysql(change=lambda entries: entries[1].update(path="auto.cnf"))
    yield "mysql-log", "A log file of the MySQL server.", "#innodb_redo", mysql(change=lambda entries: entries[1].update(path="#innodb_redo/#ib_redo0"))
    yield "space-twice", "Two files begin with the same page of the same tablespace.", "tablespace 0", backup(change=same_space)
    yield "no-system", "A backup without system tablespace.", "no system tablespace", backup(
        change=lambda entries: entries[1].update(kind="tablespace"))
    yield "left-out-number", "A file that was left out has a number.", "left out file", partial(left_out(8, no=3))
    yield "left-out-size", "A file that was left out has a size.", "left out file", partial(left_out(8, size=1))
    yield "left-out-twice", "Two files that were left out have the same space id.", "tablespace 7", partial(
        left_out(7, path="db/other.ibd"))
    yield "left-out-space", "A file that was left out has no tablespace.", "left out file", partial(
        left_out(8, space=None))
    yield "path-control", "A path with a line end in it.", "control character", with_entry(path="d/b\nc")
    yield "path-reserved", "A path that a reader uses itself.", "extraction itself uses", with_entry(path="ib_logfile0")
    yield "path-staging", "A path in a staging directory.", "extraction itself uses", with_entry(path=".xbstream-partial-x/b")
    yield "path-below", "A path below a file.", "below a file", with_entry(path="d/a/b")
    yield "source-control", "A control character in the place at the source.", "control character", with_entry(source="/a\x1bb")
    yield "string-control", "A control character in a string of the first line.", "control character", backup(gtid="0-1-1\n")
    yield "gtid", "A GTID that is none.", "GTID", backup(gtid="0-1-1'; DROP DATABASE mysql; -- ")
    yield "encryption", "Encryption of the redo that is not hexadecimal.", "hexadecimal", backup({"encryption": "zz"})
    yield "link-file", "A link file in a backup.", "link files", backup(change=lambda entries: entries[2].update(path="db/x.isl"))
    yield "data-files", "A data file that is not in the backup.", "innodb_data_file_path", backup(
        server={"innodb_data_file_path": "ibdata1:12M;/tmp/evil:10M:autoextend"})
    yield "data-files-raw", "A raw device as a data file.", "innodb_data_file_path", backup(
        server={"innodb_data_file_path": "ibdata1:12Mnewraw"})
    yield "page-size", "A page size that no server has.", "innodb_page_size", backup(server={"innodb_page_size": 8000})
    yield "checksum-algorithm", "A checksum algorithm that no server has.", "innodb_checksum_algorithm", backup(
        server={"innodb_checksum_algorithm": "crc32 --plugin-load-add=x"})
    run, raw = zstd(b"a run: ", (b"x", 493))
    yield "zstd-short", "A zstd frame that holds less than announced.", "decompress", one_frame(
        payload=run, raw=raw, raw_length=501, size=501)
    yield "zstd-long", "A zstd frame that holds more than announced.", "decompress", one_frame(
        payload=run, raw=raw, raw_length=499, size=499)
    yield "zstd-two", "Two zstd frames in one payload.", "decompress", one_frame(
        payload=run + run, raw=raw + raw, size=1000)
    yield "zstd-skip", "A zstd frame to be skipped behind the other.", "decompress", one_frame(
        payload=run + bytes.fromhex("502A4D18 01000000 00"), raw=raw)
    yield "zstd-bomb", "A zstd frame that says it holds 2^40 bytes.", "decompress", one_frame(
        payload=bytes.fromhex("28B52FFD E0") + struct.pack("<Q", 1 << 40) + bytes.fromhex("030000"), raw=raw)
    yield "zstd-window", "A zstd frame with a window of 2^41 bytes.", "decompress", one_frame(
        payload=bytes.fromhex("28B52FFD 00 F8") + run[7:], raw=raw)
    yield "codec", "A codec that no version knows.", "codec 2", one_frame(payload=run, raw=raw, codec=2)


def late():
    a = Archive(7)
    entries = [a.file(1, "a", b"one")]
    a.write_index()
    a.write_manifest(entries)
    a.file(2, "b", b"late")
    a.end()
    return a


def no_manifest():
    a = Archive(7)
    a.file(1, "a", b"one")
    a.write_index()
    a.end()
    return a


def manifest_of_another():
    a = Archive(7)
    entries = [a.file(1, "a", b"one")]
    return a.close(entries, archive_id="00" * 16)


def write(name, archive, text):
    with open(name + ".xb", "wb") as f:
        f.write(archive.out)
    with open(name + ".txt", "w") as f:
        f.write(text)


if __name__ == "__main__":
    assert crc32c(b"123456789") == 0xE3069283
    for name, archive in ("three-files", three_files()), ("backup", backup()), ("partial", partial()), ("zstd", compressed()), ("estimate", estimate()), ("mysql", mysql()), ("mysql-idle", mysql({"end_lsn": 10740}, idle=True)):
        write("v1-" + name, archive, "\n".join(archive.listing) + "\n")
    for name, wrong, words, archive in bad():
        write("v1-bad-" + name, archive, f"# {wrong}\n{words}\n")
