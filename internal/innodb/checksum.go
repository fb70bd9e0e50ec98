package innodb

import (
	"hash/crc32"
)

// castagnoli is the polynomial of every InnoDB CRC; with this table hash/crc32
// uses the processor's own instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// noChecksum is what innodb_checksum_algorithm=none wrote, and what
// page_compressed pages before full_crc32 have instead of a checksum.
const noChecksum = 0xDEADBEEF

// oldCRC is the checksum of an uncompressed page before full_crc32. Bytes
// 26..33 are left out because the server changed them after computing it.
func oldCRC(page []byte) uint32 {
	return crc(page[OffPageNo:offKeyVersion]) ^ crc(page[OffData:len(page)-Trailer])
}

// zipCRC is the checksum of a ROW_FORMAT=COMPRESSED page. The LSN is left out
// too, as the server sets it without a new checksum.
func zipCRC(page []byte) uint32 {
	return crc(page[OffPageNo:offLSN]) ^ crc(page[OffType:offKeyVersion]) ^ crc(page[OffSpaceID:])
}

// zipAdler is the checksum of a ROW_FORMAT=COMPRESSED page written with
// innodb_checksum_algorithm=innodb: Adler-32 that starts from 0 (InnoDB
// page0zip.cc), which hash/adler32 cannot do.
func zipAdler(page []byte) uint32 {
	const mod = 65521
	var a, b uint32
	for _, part := range [][]byte{page[OffPageNo:offLSN], page[OffType:offKeyVersion], page[OffSpaceID:]} {
		for _, c := range part {
			a = (a + uint32(c)) % mod
			b = (b + a) % mod
		}
	}
	return b<<16 | a
}

// fold is the hash behind innodb_checksum_algorithm=innodb (InnoDB ut0rnd.h).
// The server computes it in 64 bits and keeps the low half, which depends on
// low halves only.
func fold(p []byte) uint32 {
	const mask, mask2 = 1463735687, 1653893711
	var h uint32
	for _, c := range p {
		h = ((h^uint32(c)^mask2)<<8 + h) ^ mask + uint32(c)
	}
	return h
}

// legacySum is the first checksum of innodb_checksum_algorithm=innodb.
func legacySum(page []byte) uint32 {
	return fold(page[OffPageNo:offKeyVersion]) + fold(page[OffData:len(page)-Trailer])
}

// legacyTrailerSum is the second one, from before MySQL 4.0.14; it covers the first.
func legacyTrailerSum(page []byte) uint32 { return fold(page[:offKeyVersion]) }
