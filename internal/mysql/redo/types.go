package redo

import "fmt"

// Type is the kind of a record (InnoDB mtr0types.h, mlog_id_t). The numbers are
// the same from 8.0.30 to 9.7. Those whose name ends in 8027 were replaced in
// 8.0.28 and do not occur in a log of format 6; they differ in how they describe
// the index.
type Type byte

// The types.
const (
	Write1                Type = 1
	Write2                Type = 2
	Write4                Type = 4
	Write8                Type = 8
	Insert8027            Type = 9
	ClustDeleteMark8027   Type = 10
	SecDeleteMark         Type = 11
	UpdateInPlace8027     Type = 13
	Delete8027            Type = 14
	ListEndDelete8027     Type = 15
	ListStartDelete8027   Type = 16
	ListCopyCreated8027   Type = 17
	Reorganize8027        Type = 18
	PageCreate            Type = 19
	UndoInsert            Type = 20
	UndoEraseEnd          Type = 21
	UndoInit              Type = 22
	UndoHeaderReuse       Type = 24
	UndoHeaderCreate      Type = 25
	MinRecMark            Type = 26
	IbufBitmapInit        Type = 27
	InitFilePage          Type = 29
	WriteString           Type = 30
	MultiEnd              Type = 31
	Dummy                 Type = 32
	FileCreate            Type = 33
	FileRename            Type = 34
	FileDelete            Type = 35
	CompMinRecMark        Type = 36
	CompPageCreate        Type = 37
	CompInsert8027        Type = 38
	CompClustMark8027     Type = 39
	CompSecMark8027       Type = 40
	CompUpdate8027        Type = 41
	CompDelete8027        Type = 42
	CompListEnd8027       Type = 43
	CompListStart8027     Type = 44
	CompCopyCreated8027   Type = 45
	CompReorganize8027    Type = 46
	ZipWriteNodePtr       Type = 48
	ZipWriteBlobPtr       Type = 49
	ZipWriteHeader        Type = 50
	ZipPageCompress       Type = 51
	ZipCompressNoData8027 Type = 52
	ZipReorganize8027     Type = 53
	PageCreateRTree       Type = 57
	CompPageCreateRTree   Type = 58
	InitFilePage2         Type = 59
	IndexLoad             Type = 61
	TableDynamicMeta      Type = 62
	PageCreateSDI         Type = 63
	CompPageCreateSDI     Type = 64
	FileExtend            Type = 65
	Test                  Type = 66
	Insert                Type = 67
	ClustDeleteMark       Type = 68
	Delete                Type = 69
	UpdateInPlace         Type = 70
	ListCopyCreated       Type = 71
	Reorganize            Type = 72
	ZipReorganize         Type = 73
	ZipPageCompressNoData Type = 74
	ListEndDelete         Type = 75
	ListStartDelete       Type = 76
	lastType                   = ListStartDelete
	singleRecord               = 0x80 // flag of the only record of a mini-transaction
)

// description is how a record describes the index of its page.
type description byte

const (
	none    description = iota
	current             // with version and flags, since 8.0.28
	compact             // the compact form before
	nothing             // the redundant form before: no bytes at all
)

// kinds lists what is known of every type: its name, how it describes the index,
// and how the rest of its body is read.
var kinds = [lastType + 1]struct {
	name string
	desc description
	body func(*Cursor)
}{
	Write1:                {"1BYTE", none, write4},
	Write2:                {"2BYTES", none, write4},
	Write4:                {"4BYTES", none, write4},
	Write8:                {"8BYTES", none, write8},
	Insert8027:            {"REC_INSERT_8027", nothing, insert},
	ClustDeleteMark8027:   {"CLUST_DELETE_MARK_8027", nothing, clustMark},
	SecDeleteMark:         {"SEC_DELETE_MARK", none, plain(3)},
	UpdateInPlace8027:     {"UPDATE_IN_PLACE_8027", nothing, update},
	Delete8027:            {"REC_DELETE_8027", nothing, plain(2)},
	ListEndDelete8027:     {"LIST_END_DELETE_8027", nothing, plain(2)},
	ListStartDelete8027:   {"LIST_START_DELETE_8027", nothing, plain(2)},
	ListCopyCreated8027:   {"LIST_END_COPY_CREATED_8027", nothing, sized4},
	Reorganize8027:        {"PAGE_REORGANIZE_8027", nothing, plain(0)},
	PageCreate:            {"PAGE_CREATE", none, plain(0)},
	UndoInsert:            {"UNDO_INSERT", none, sized2},
	UndoEraseEnd:          {"UNDO_ERASE_END", none, plain(0)},
	UndoInit:              {"UNDO_INIT", none, number},
	UndoHeaderReuse:       {"UNDO_HDR_REUSE", none, number64},
	UndoHeaderCreate:      {"UNDO_HDR_CREATE", none, number64},
	MinRecMark:            {"REC_MIN_MARK", none, plain(2)},
	IbufBitmapInit:        {"IBUF_BITMAP_INIT", none, plain(0)},
	InitFilePage:          {"INIT_FILE_PAGE", none, plain(0)},
	WriteString:           {"WRITE_STRING", none, writeString},
	MultiEnd:              {"MULTI_END", none, nil},
	Dummy:                 {"DUMMY", none, nil},
	FileCreate:            {"FILE_CREATE", none, fileCreate},
	FileRename:            {"FILE_RENAME", none, fileRename},
	FileDelete:            {"FILE_DELETE", none, sized2},
	CompMinRecMark:        {"COMP_REC_MIN_MARK", none, plain(2)},
	CompPageCreate:        {"COMP_PAGE_CREATE", none, plain(0)},
	CompInsert8027:        {"COMP_REC_INSERT_8027", compact, insert},
	CompClustMark8027:     {"COMP_CLUST_DELETE_MARK_8027", compact, clustMark},
	CompSecMark8027:       {"COMP_SEC_DELETE_MARK_8027", compact, plain(3)},
	CompUpdate8027:        {"COMP_UPDATE_IN_PLACE_8027", compact, update},
	CompDelete8027:        {"COMP_REC_DELETE_8027", compact, plain(2)},
	CompListEnd8027:       {"COMP_LIST_END_DELETE_8027", compact, plain(2)},
	CompListStart8027:     {"COMP_LIST_START_DELETE_8027", compact, plain(2)},
	CompCopyCreated8027:   {"COMP_LIST_END_COPY_CREATED_8027", compact, sized4},
	CompReorganize8027:    {"COMP_PAGE_REORGANIZE_8027", compact, plain(0)},
	ZipWriteNodePtr:       {"ZIP_WRITE_NODE_PTR", none, plain(2 + 2 + 4)},
	ZipWriteBlobPtr:       {"ZIP_WRITE_BLOB_PTR", none, plain(2 + 2 + 20)},
	ZipWriteHeader:        {"ZIP_WRITE_HEADER", none, zipHeader},
	ZipPageCompress:       {"ZIP_PAGE_COMPRESS", none, zipPage},
	ZipCompressNoData8027: {"ZIP_PAGE_COMPRESS_NO_DATA_8027", compact, plain(1)},
	ZipReorganize8027:     {"ZIP_PAGE_REORGANIZE_8027", compact, plain(1)},
	PageCreateRTree:       {"PAGE_CREATE_RTREE", none, plain(0)},
	CompPageCreateRTree:   {"COMP_PAGE_CREATE_RTREE", none, plain(0)},
	InitFilePage2:         {"INIT_FILE_PAGE2", none, plain(0)},
	IndexLoad:             {"INDEX_LOAD", none, plain(8)},
	TableDynamicMeta:      {"TABLE_DYNAMIC_META", none, dynamicMeta},
	PageCreateSDI:         {"PAGE_CREATE_SDI", none, plain(0)},
	CompPageCreateSDI:     {"COMP_PAGE_CREATE_SDI", none, plain(0)},
	FileExtend:            {"FILE_EXTEND", none, plain(8 + 8)},
	Test:                  {"TEST", none, testRecord},
	Insert:                {"REC_INSERT", current, insert},
	ClustDeleteMark:       {"CLUST_DELETE_MARK", current, clustMark},
	Delete:                {"REC_DELETE", current, plain(2)},
	UpdateInPlace:         {"UPDATE_IN_PLACE", current, update},
	ListCopyCreated:       {"LIST_END_COPY_CREATED", current, sized4},
	Reorganize:            {"PAGE_REORGANIZE", current, plain(0)},
	ZipReorganize:         {"ZIP_PAGE_REORGANIZE", current, plain(1)},
	ZipPageCompressNoData: {"ZIP_PAGE_COMPRESS_NO_DATA", current, plain(1)},
	ListEndDelete:         {"LIST_END_DELETE", current, plain(2)},
	ListStartDelete:       {"LIST_START_DELETE", current, plain(2)},
}

// String names the type as InnoDB does, without MLOG_.
func (t Type) String() string {
	if t <= lastType && kinds[t].name != "" {
		return kinds[t].name
	}
	return fmt.Sprintf("record type %d", byte(t))
}

// File says whether the record is about the file of a tablespace.
func (t Type) File() bool {
	return t == FileCreate || t == FileRename || t == FileDelete || t == FileExtend
}

// The bodies (InnoDB log0recv.cc, recv_parse_or_apply_log_rec_body, and the
// functions it calls).

func plain(n int) func(*Cursor) { return func(c *Cursor) { c.Skip(n) } }

func sized2(c *Cursor) { c.Skip(c.U16()) }

func sized4(c *Cursor) {
	n := c.U32()
	if n > MaxMTR {
		c.Fail(ErrMalformed)
	}
	c.Skip(int(n))
}

func number(c *Cursor) { c.Number() }

func number64(c *Cursor) { c.Number64() }

// write4 is an offset and a value (InnoDB mtr0log.cc, mlog_parse_nbytes).
func write4(c *Cursor) {
	c.Skip(2)
	c.Number()
}

func write8(c *Cursor) {
	c.Skip(2)
	c.Number64()
}

func writeString(c *Cursor) {
	c.Skip(2)
	sized2(c)
}

// insert: where, and what differs from the record there (InnoDB page0cur.cc,
// page_cur_parse_insert_rec).
func insert(c *Cursor) {
	c.Skip(2)
	insertTail(c)
}

func insertTail(c *Cursor) {
	n := c.Length(MaxMTR)
	if n&1 != 0 {
		c.Skip(1)
		c.Number()
		c.Number()
	}
	c.Skip(n >> 1)
}

// systemColumns: position, roll pointer, transaction id (InnoDB row0upd.cc,
// row_upd_parse_sys_vals).
func systemColumns(c *Cursor) {
	c.Number()
	c.Skip(7)
	c.Number64()
}

// clustMark: flags, value, system columns, where (InnoDB btr0cur.cc,
// btr_cur_parse_del_mark_set_clust_rec).
func clustMark(c *Cursor) {
	c.Skip(2)
	systemColumns(c)
	c.Skip(2)
}

// NullLength stands for the length of a NULL in an update.
const NullLength = 0xFFFFFFFF

// update: flags, system columns, where, info bits, and the fields (InnoDB
// btr0cur.cc, btr_cur_parse_update_in_place; row0upd.cc, row_upd_index_parse).
func update(c *Cursor) {
	c.Skip(1)
	systemColumns(c)
	c.Skip(2 + 1)
	for n := c.Length(MaxMTR); n > 0 && c.err == nil; n-- {
		c.Number()
		if size := c.Number(); size != NullLength {
			if size > MaxMTR {
				c.Fail(ErrMalformed)
			}
			c.Skip(int(size))
		}
	}
}

func fileCreate(c *Cursor) {
	c.Skip(4)
	sized2(c)
}

func fileRename(c *Cursor) {
	sized2(c)
	sized2(c)
}

// zipHeader: offset, length, bytes (InnoDB page0zip.cc,
// page_zip_parse_write_header).
func zipHeader(c *Cursor) {
	c.Skip(1)
	c.Skip(c.U8())
}

// zipPage: the sizes of what is at the start and at the end of the page, the
// neighbours, and both (InnoDB page0zip.cc, page_zip_parse_compress).
func zipPage(c *Cursor) {
	size := c.U16()
	trailer := c.U16()
	c.Skip(8 + size + trailer)
}

// dynamicMeta: corrupted indexes, or a counter (InnoDB dict0dict.cc,
// CorruptedIndexPersister, AutoIncPersister).
func dynamicMeta(c *Cursor) {
	switch c.U8() {
	case metaCorrupted:
		c.Skip(c.U8() * (4 + 8))
	case metaAutoIncrement:
		c.Small64()
	default:
		c.Fail(ErrMalformed)
	}
}

func testRecord(c *Cursor) {
	c.Skip(8 + 8)
	sized2(c)
	c.Skip(8 + 8)
}
