package redo

// MTR is one mini-transaction.
type MTR struct {
	// Records holds its records, without a final MULTI_REC_END.
	Records []byte
	// Size counts the end as well.
	Size int
}

// ScanMTR reads the mini-transaction at the start of b: one record that says it
// is the only one, or records up to MULTI_REC_END. A MULTI_REC_END alone is one
// without records, and so is a DUMMY_RECORD, which always stands alone (InnoDB
// log0recv.cc, recv_single_rec, recv_multi_rec; log0files_governor.cc,
// log_files_generate_dummy_records). The error is ErrShort or ErrMalformed.
func ScanMTR(b []byte) (MTR, error) {
	for at := 0; ; {
		r, n, err := Next(b[at:])
		switch {
		case err != nil:
			if err == ErrShort && len(b)-at > MaxMTR {
				err = ErrMalformed
			}
			return MTR{}, err
		case r.Type == MultiEnd:
			return MTR{b[:at:at], at + 1}, nil
		case r.Type == Dummy && at == 0:
			return MTR{nil, 1}, nil
		case r.Type == Dummy || r.Single && at != 0:
			return MTR{}, ErrMalformed
		case r.Single:
			return MTR{b[:n:n], n}, nil
		}
		if at += n; at > MaxMTR {
			return MTR{}, ErrMalformed
		}
	}
}

// AppendMTR appends a mini-transaction of records as MTR has them.
func AppendMTR(dst, records []byte) []byte {
	dst = append(dst, records...)
	if len(records) == 0 || records[0]&singleRecord == 0 {
		dst = append(dst, byte(MultiEnd))
	}
	return dst
}
