#!/usr/bin/env python3
"""Writes the test vectors of SPEC.md section 9, from SPEC.md alone.

Nothing here uses the Go code: an archive that our reader accepts and this
script wrote shows that document and code agree. Run it in its own folder; the
result is committed, so the tests need no Python.
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


FILE, DATA, HOLE, CLOSE, REDO, MANIFEST, INDEX, END = range(1, 9)


class Archive:
    def __init__(self, archive_id):
        self.id = archive_id
        head = bytes([0x89]) + b"XBA\r\n\x1a\n" + struct.pack(">HH", 1, 0) + archive_id
        self.out = head + struct.pack(">I", crc32c(head))
        self.digest = hashlib.sha256(self.out)
        self.seq = 0
        self.manifest = self.index = self.entries = 0
        self.places = []
        self.sums = [0, 0, 0, 0]  # files, data, holes, redo

    def frame(self, kind, file=0, pos=0, payload=b"", hole=0, flags=0):
        head = b"XBF1" + struct.pack(
            ">BBBBQIIQIII", kind, flags, 0, 0, self.seq, file, hole or len(payload), pos,
            len(payload), crc32c(payload) if payload else 0, 0)
        head += struct.pack(">I", crc32c(self.id, head))
        if kind != END:
            self.digest.update(head)
        self.seq += 1
        if kind == MANIFEST:
            self.manifest = self.manifest or len(self.out)
        elif kind == INDEX:
            self.index = len(self.out)
        else:
            self.places.append((len(self.out), file))
        self.out += head + payload
        for i, counted in enumerate((FILE, DATA, HOLE, REDO)):
            if kind == counted:
                self.sums[i] += hole or (1 if kind == FILE else len(payload))

    def write_index(self):
        places, self.places = self.places, []
        payload = struct.pack(">Q", self.index) + b"".join(struct.pack(">QI", *p) for p in places)
        self.frame(INDEX, pos=self.entries, payload=payload, flags=1)
        self.entries += len(places)

    def end(self):
        self.frame(END, payload=struct.pack(
            ">QQQQQQQ", self.seq, *self.sums, self.manifest, self.index) + self.digest.digest())


def three_files():
    a = Archive(bytes([1]) + bytes(15))
    entries = [{"path": "db", "kind": "dir", "size": 0, "mode": 0o750}]
    lsn = 1000
    for no, text, hole in ((1, b"first file", 0), (2, b"second, with a hole", 4096), (3, b"", 0)):
        path = "db/f%d" % (no - 1)
        a.frame(FILE, no, payload=json.dumps({"path": path, "kind": "file"}).encode())
        if text:
            a.frame(DATA, no, 0, text)
        if hole:
            a.frame(HOLE, no, len(text), hole=hole)
        a.frame(REDO, pos=lsn, payload=b"0123456789")
        lsn += 10
        a.frame(CLOSE, no, len(text) + hole)
        if no == 2:
            a.write_index()
        entries.append({"no": no, "path": path, "kind": "file", "size": len(text) + hole, "mode": 0o640})
    # A type that no version knows yet, marked as skippable: to be ignored.
    a.frame(200, payload=b"from the future", flags=1)
    head = json.dumps({"format": 1, "archive_id": a.id.hex(), "tool": "vector 1",
                       "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:01Z"})
    text = head[:-1] + ',"files":[\n' + ",\n".join(json.dumps(e) for e in entries) + "\n]}\n"
    json.loads(text)
    # Cut into two frames at an arbitrary byte.
    a.frame(MANIFEST, pos=0, payload=text[:100].encode())
    a.frame(MANIFEST, pos=100, payload=text[100:].encode())
    a.write_index()
    a.end()
    return a.out


if __name__ == "__main__":
    assert crc32c(b"123456789") == 0xE3069283
    with open("v1-three-files.xb", "wb") as f:
        f.write(three_files())
