#!/usr/bin/env python3
"""Lists and checks uncompressed archives of xbsend: read_archive.py [FILE…].

A second reader, written from SPEC.md alone with nothing but Python's standard
library, so that a mistake which the Go writer and the Go reader share has a
witness. It reads standard input or each FILE in one pass. Of one archive it
lists the files, of several it prints a line each: exit status, name, reason.

Exit status: 0 sound, 3 damaged (why and where is on standard error), 2 not read
by this reader: encrypted or compressed. Of several archives the worst counts.
"""

import datetime
import hashlib
import json
import re
import struct
import sys

MIB = 1 << 20
LIMIT_PAYLOAD = MIB
LIMIT_FILE_PAYLOAD = 8 << 10
LIMIT_HOLE = 1 << 30
LIMIT_SIZE = 1 << 50
LIMIT_PATH, LIMIT_ELEMENT = 4096, 255
LIMIT_FILES = 1 << 24
LIMIT_OPEN = 1024
LIMIT_RUNS = 1024
LIMIT_MANIFEST = 4 << 30
LIMIT_LINE = 64 << 10

FILE, DATA, HOLE, CLOSE, REDO, MANIFEST, INDEX, END = range(1, 9)
SPACE_KINDS = ("tablespace", "system", "undo")
LEFT_OUT = "left-out"


class Damaged(Exception):
    pass


class NotRead(Exception):
    pass


def crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


CRC_TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


assert crc32c(b"123456789") == 0xE3069283


def require(condition, message):
    if not condition:
        raise Damaged(message)


class Header:
    """The 48 bytes before every payload (SPEC.md section 3)."""

    LAYOUT = struct.Struct(">4sBBBBQIIQIIII")

    def __init__(self, raw):
        (self.magic, self.type, self.flags, self.codec, self.zero, self.sequence,
         self.file, self.raw, self.position, self.stored, self.crc_stored,
         self.crc_raw, self.crc_header) = self.LAYOUT.unpack(raw)

    def check(self, raw, archive_id, sequence):
        require(self.magic == b"XBF1", "wrong frame magic")
        require(self.crc_header == crc32c(archive_id + raw[:44]), "header checksum differs")
        require(self.sequence == sequence, f"sequence number {self.sequence}, expected {sequence}")
        require(self.flags & ~1 == 0, "unknown flag")
        require(self.codec in (0, 1), "unknown codec")
        require(self.zero == 0, "byte 7 is not 0")
        require(self.stored <= LIMIT_PAYLOAD, "stored length over the limit")
        hole = self.type == HOLE
        require(self.raw <= (LIMIT_HOLE if hole else LIMIT_PAYLOAD), "raw length over the limit")
        if self.codec == 0:
            require(hole or self.stored == self.raw, "stored and raw length differ")
            require(self.crc_raw == 0, "raw checksum of a stored payload")
        else:
            require(0 < self.stored < self.raw, "stored length of a compressed payload")
        require(self.stored or self.crc_stored == 0, "checksum without a payload")
        self.check_type()

    def check_type(self):
        known = FILE <= self.type <= END
        require(known or self.flags & 1, f"unknown frame type {self.type}")
        if not known:
            return
        require((self.flags & 1) == (self.type == INDEX), "skippable flag on the wrong type")
        if self.type in (FILE, DATA, HOLE, CLOSE):
            require(1 <= self.file <= LIMIT_FILES, "file number out of range")
        else:
            require(self.file == 0, "file number in a frame of no file")
        if self.type in (HOLE, CLOSE, END):
            require(self.codec == 0, "codec in a frame that has none")
        if self.type in (HOLE, CLOSE):
            require(self.stored == 0, "payload in a frame that has none")
        if self.type in (FILE, DATA, HOLE, REDO, MANIFEST, INDEX):
            require(self.raw > 0, "empty frame")
        if self.type == FILE:
            require(self.raw <= LIMIT_FILE_PAYLOAD, "FILE payload over the limit")
        if self.type in (FILE, END):
            require(self.position == 0, "position is not 0")
        if self.type in (DATA, HOLE):
            require(self.position + self.raw <= LIMIT_SIZE, "data beyond the largest size")
        if self.type == CLOSE:
            require(self.position <= LIMIT_SIZE, "size over the limit")
        if self.type == REDO:
            require(self.position + self.raw < 1 << 64, "redo beyond the largest LSN")
        if self.type == END:
            require(self.raw == 88, "END payload is not 88 bytes")


class Runs:
    """The bytes of an open file that arrived, as runs that do not touch."""

    def __init__(self):
        self.runs = []  # [begin, end), ascending

    def add(self, begin, end):
        at = next((i for i, r in enumerate(self.runs) if r[1] >= begin), len(self.runs))
        touched = []
        while at < len(self.runs) and self.runs[at][0] <= end:
            run = self.runs.pop(at)
            require(end <= run[0] or run[1] <= begin, "bytes arrive twice")
            touched.append(run)
        begin = min([begin] + [r[0] for r in touched])
        end = max([end] + [r[1] for r in touched])
        self.runs.insert(at, (begin, end))
        require(len(self.runs) <= LIMIT_RUNS, "too many separate runs")

    def covers(self, size):
        return self.runs == ([(0, size)] if size else [])


def check_path(path):
    require(isinstance(path, str) and path != "", "empty path")
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        raise Damaged("path is not UTF-8") from None
    require(len(encoded) <= LIMIT_PATH, "path over the limit")
    require("\\" not in path, "backslash in a path")
    require(path not in RESERVED and not path.startswith(".xbstream-partial-"), f"reserved path {path!r}")
    for element in path.split("/"):
        require(element not in ("", ".", ".."), f"path {path!r}")
        require(len(element.encode()) <= LIMIT_ELEMENT, "path element over the limit")


RESERVED = ("ib_logfile0", "xbstream_manifest.json", "backup-my.cnf", "xtrabackup_checkpoints", "xtrabackup_info",
            "xtrabackup_binlog_info", "xtrabackup_slave_info", "xtrabackup_galera_info")


def check_strings(value):
    """Refuses control characters, SPEC.md section 5.1."""
    if isinstance(value, str):
        require(not re.search(r"[\x00-\x1f\x7f-\x9f]", value), f"control character in {value!r}")
    for v in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_strings(v)


def check_server(server):
    for key, limit in (("innodb_undo_tablespaces", 127), ("innodb_log_file_size", 1 << 49),
                       ("innodb_compression_level", 9), ("lower_case_table_names", 2)):
        number(server.get(key, 0), key, limit + 1)
    require(server.get("innodb_page_size", 0) in (0, 4096, 8192, 16384, 32768, 65536), "innodb_page_size")
    require(re.fullmatch("|(strict_)?(crc32|full_crc32|innodb|none)", server.get("innodb_checksum_algorithm", "")),
            "innodb_checksum_algorithm")


SIZE = "[0-9]+[KMGkmg]?"


def data_files(spec):
    """The names in an innodb_data_file_path."""
    names = []
    for i, part in enumerate(parts := spec.rstrip(";").split(";")):
        last = f"(:autoextend(:max:{SIZE})?(:autoshrink)?)?" if i == len(parts) - 1 else ""
        match = re.fullmatch(rf"([^:/\\]+):{SIZE}{last}", part)
        require(match, f"innodb_data_file_path {spec!r}")
        names.append(match.group(1))
    return names


def check_space(kind, space):
    require(space is None or isinstance(space, dict), "space is not an object")
    require(kind not in SPACE_KINDS + (LEFT_OUT,) or space is not None, "tablespace without space")
    require(kind != LEFT_OUT or space.get("first_page", 0) == 0, "later file left out")
    require(kind != "dir" or space is None, "directory with a space")


def parse(text):
    try:
        value = json.loads(text.decode("utf-8", "strict"))
    except ValueError as e:
        raise Damaged(f"not JSON: {e}") from None
    require(isinstance(value, dict), "not a JSON object")
    return value


def number(value, what, limit=1 << 64):
    require(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit, what)
    return value


class Archive:
    def __init__(self, stream):
        self.stream = stream
        self.offset = 0
        self.sequence = 0
        self.digest = hashlib.sha256()
        self.open = {}          # file number -> Runs
        self.sizes = []         # of file number i+1; None while it is open
        self.data = self.holes = self.redo = 0
        self.redo_begin = self.redo_end = None
        self.manifest = bytearray()
        self.manifest_at = None
        self.entries = []       # (offset, file number) of frames of types 1 to 5
        self.indexed = 0
        self.index_at = 0

    def read(self, n):
        data = self.stream.read(n)
        require(len(data) == n, "input ends early")
        self.offset += n
        return data

    def check(self):
        self.archive_header()
        while True:
            at = self.offset
            try:
                if self.frame(at):
                    break
            except Damaged as e:
                raise Damaged(f"frame {self.sequence} at offset {at}: {e}") from None
        at = self.offset
        require(self.stream.read(1) == b"", f"bytes after the end at offset {at}")

    def archive_header(self):
        raw = self.read(32)
        if raw.startswith(b"age-encryption.org/") or raw.startswith(b"-----BEGIN AGE"):
            raise NotRead("encrypted")
        require(raw[:8] == b"\x89XBA\r\n\x1a\n", "no archive: wrong magic")
        version, flags = struct.unpack(">HH", raw[8:12])
        require(struct.unpack(">I", raw[28:])[0] == crc32c(raw[:28]), "archive header checksum differs")
        require(version == 1, "another version")
        require(flags == 0, "unknown archive flag")
        self.id = raw[12:28]
        self.digest.update(raw)

    def frame(self, at):
        raw = self.read(48)
        h = Header(raw)
        h.check(raw, self.id, self.sequence)
        payload = self.read(h.stored)
        require(crc32c(payload) == h.crc_stored, "payload checksum differs")
        if h.codec:
            raise NotRead("compressed")
        if h.type <= REDO:
            require(self.manifest_at is None, "frame after the manifest")
            self.entries.append((at, h.file))
        step = {FILE: self.file, DATA: self.bytes, HOLE: self.bytes, CLOSE: self.close,
                REDO: self.redo_piece, MANIFEST: self.manifest_piece, INDEX: self.index,
                END: self.end}.get(h.type)
        if step:
            step(h, payload, at)
        self.digest.update(raw)
        self.sequence += 1
        return h.type == END

    def file(self, h, payload, at):
        require(h.file == len(self.sizes) + 1, "file number out of order")
        announced = parse(payload)
        check_path(announced.get("path"))
        require(announced.get("kind") in SPACE_KINDS + ("file",), "unknown kind")
        self.sizes.append(None)
        self.open[h.file] = Runs()
        require(len(self.open) <= LIMIT_OPEN, "too many files open")

    def bytes(self, h, payload, at):
        require(h.file in self.open, "file is not open")
        self.open[h.file].add(h.position, h.position + h.raw)
        if h.type == DATA:
            self.data += h.raw
        else:
            self.holes += h.raw

    def close(self, h, payload, at):
        require(h.file in self.open, "file is not open")
        require(self.open.pop(h.file).covers(h.position), "file is not complete")
        self.sizes[h.file - 1] = h.position

    def redo_piece(self, h, payload, at):
        if self.redo_end is None:
            self.redo_begin = h.position
        else:
            require(h.position == self.redo_end, "gap in the redo")
        self.redo_end = h.position + h.raw
        self.redo += h.raw

    def manifest_piece(self, h, payload, at):
        require(not self.open, "manifest while files are open")
        require(h.position == len(self.manifest), "manifest piece out of order")
        if self.manifest_at is None:
            self.manifest_at = at
        self.manifest += payload
        require(len(self.manifest) <= LIMIT_MANIFEST, "manifest over the limit")

    def index(self, h, payload, at):
        require(len(payload) >= 20 and (len(payload) - 8) % 12 == 0, "length of an index")
        require(h.position == self.indexed, "position of an index")
        require(struct.unpack(">Q", payload[:8])[0] == self.index_at, "predecessor of an index")
        claimed = [struct.unpack_from(">QI", payload, i) for i in range(8, len(payload), 12)]
        actual = self.entries[self.indexed:]
        require(claimed == actual, "index differs from the frames before it")
        self.indexed += len(claimed)
        self.index_at = at

    def end(self, h, payload, at):
        require(not self.open, "a file is still open")
        require(self.manifest_at is not None, "no manifest")
        if self.index_at:
            require(self.indexed == len(self.entries), "frames are missing in the index")
        expected = struct.pack(">7Q", self.sequence, len(self.sizes), self.data, self.holes,
                               self.redo, self.manifest_at, self.index_at)
        require(payload[:56] == expected, "totals differ")
        require(payload[56:] == self.digest.digest(), "digest differs")
        self.check_manifest()

    def check_manifest(self):
        text = bytes(self.manifest)
        require(text.endswith(b"\n"), "manifest is cut")
        lines = text[:-1].split(b"\n")
        require(all(len(line) < LIMIT_LINE for line in lines), "line of the manifest over the limit")
        require(len(lines) >= 2 and lines[-1] == b"]}", "form of the manifest")
        require(lines[0].endswith(b'"files":['), "form of the manifest")
        files = lines[1:-1]
        for i, line in enumerate(files):
            require(line.endswith(b",") == (i < len(files) - 1), "comma in the manifest")
        self.first = parse(lines[0] + b"]}")
        self.files = [parse(line.rstrip(b",")) for line in files]
        require(self.first.get("format") == 1, "another format of the manifest")
        require(self.first.get("archive_id") == self.id.hex(), "archive id of the manifest")
        for part in [self.first, *self.files]:
            check_strings(part)
        self.check_files()
        self.check_backup()

    def check_files(self):
        paths, named, spaces = set(), set(), set()
        for f in self.files:
            check_path(f.get("path"))
            require(f["path"] not in paths, f"two entries with the path {f['path']!r}")
            paths.add(f["path"])
            require(f.get("kind") in SPACE_KINDS + ("file", "dir", LEFT_OUT), "unknown kind")
            check_space(f["kind"], f.get("space"))
            if "mtime" in f:
                self.check_time(f["mtime"])
            if f["kind"] in SPACE_KINDS + (LEFT_OUT,) and not f["space"].get("rebuild"):
                space = (number(f["space"].get("id", 0), "space id", 1 << 32),
                         number(f["space"].get("first_page", 0), "first page", 1 << 32))
                require(space not in spaces, f"two files of space {space[0]} from page {space[1]}")
                spaces.add(space)
            no = number(f.get("no", 0), "file number")
            size = number(f.get("size", 0), "size")
            if f["kind"] in ("dir", LEFT_OUT):
                require(no == 0 and size == 0, "number or size of what is no file")
                continue
            require(1 <= no <= len(self.sizes), "file that never arrived")
            require(no not in named, "number that two entries name")
            named.add(no)
            require(size == self.sizes[no - 1], "size differs")
        no_dirs = {f["path"] for f in self.files if f["kind"] != "dir"}
        for path in paths:
            parts = path.split("/")
            require(not any("/".join(parts[:i]) in no_dirs for i in range(1, len(parts))), f"{path!r} lies below a file")
        unnamed = len(self.sizes) - len(named)
        require(unnamed == number(self.first.get("discarded_files", 0), "discarded_files"),
                "count of unnamed files")

    def check_time(self, value):
        require(isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", value), "mtime")
        try:
            datetime.datetime.strptime(value[:19], "%Y-%m-%dT%H:%M:%S")
        except ValueError:
            raise Damaged("mtime") from None

    def check_backup(self):
        backup = self.first.get("backup")
        if backup is None:
            require(self.redo_end is None, "redo without a backup")
            return
        require(any(f["kind"] == "system" and f["space"].get("first_page", 0) == 0
                    for f in self.files), "backup without system tablespace")
        require(backup.get("type", "full") in ("full", "full-backuped"), "type of the backup")
        require(not any(f["path"].endswith(".isl") for f in self.files if f["kind"] != LEFT_OUT), "link file")
        server = backup.get("server") or {}
        check_server(server)
        if server.get("dialect") == "mysql":
            own = re.compile(r"(auto\.cnf|ibtmp1|#ib_[^/]*dblwr|(#innodb_redo|#innodb_temp)(/.*)?)")
            require(not any(own.fullmatch(f["path"]) for f in self.files if f["kind"] != LEFT_OUT), "file of the server's own")
        system = sorted((f for f in self.files if f["kind"] == "system"), key=lambda f: f["space"].get("first_page", 0))
        require(data_files(server.get("innodb_data_file_path") or "ibdata1:12M:autoextend") == [f["path"] for f in system],
                "innodb_data_file_path and the system tablespace")
        gtid = "[0-9]{1,10}-[0-9]{1,10}-[0-9]{1,20}"
        for key in ("gtid", "gtid_slave_pos"):
            require(server.get("dialect") == "mysql" or re.fullmatch(f"|{gtid}(,{gtid})*", backup.get(key, "")), key)
        redo = backup.get("redo") or {}
        require(re.fullmatch("|([0-9a-fA-F]{2}){28}", redo.get("encryption", "")), "encryption of the redo")
        mysql = (backup.get("server") or {}).get("dialect") == "mysql"
        require(redo.get("format") == ("mysql-8.0.30" if mysql else "mariadb-10.8"), "format of the redo")
        begin, end = redo.get("checkpoint_lsn", -1), redo.get("end_lsn", -1)
        if mysql:
            for lsn in begin, end:
                require(12 <= lsn % 512 <= 507, "LSN at which no redo begins or ends")
            if self.redo_end is not None or begin != end:
                position = lambda lsn: lsn // 512 * 496 + lsn % 512 - 12
                require(position(begin) == self.redo_begin, "redo begins elsewhere")
                require(position(end) == self.redo_end, "redo ends elsewhere")
            require(redo.get("checkpoint_end_lsn") == begin, "checkpoint_end_lsn is not checkpoint_lsn")
        else:
            require(begin == self.redo_begin, "redo begins elsewhere")
            require(end == self.redo_end, "redo ends elsewhere")
            require(begin <= redo.get("checkpoint_end_lsn", -1) < end, "checkpoint_end_lsn outside of the redo")

    def list(self):
        for f in sorted(self.files, key=lambda f: f["path"]):
            print(f.get("kind"), f.get("size", 0), f["path"])


def read(stream):
    """Returns status, reason and the archive."""
    archive = Archive(stream)
    try:
        archive.check()
    except Damaged as e:
        return 3, str(e), archive
    except NotRead as e:
        return 2, f"not read: {e}", archive
    return 0, "sound", archive


def main(names):
    if len(names) > 1:
        worst = 0
        for name in names:
            with open(name, "rb") as f:
                status, reason, _ = read(f)
            print(status, name, reason)
            worst = max(worst, status)
        return worst
    status, reason, archive = read(open(names[0], "rb") if names else sys.stdin.buffer)
    if status:
        print(f"read_archive: {reason}", file=sys.stderr)
    else:
        archive.list()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
