package quote

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// B3: what can be read and pasted stays as it is, everything else is escaped.
func TestName(t *testing.T) {
	for _, s := range []string{"", "shop/orders.ibd", "größe", "北京/表.ibd", "a b'c\\d", "née", "🐬", "ﾃｰﾌﾞﾙ", "@4e00#P#p0"} {
		if got := Name(s); got != s {
			t.Errorf("%q is printed as %s", s, got)
		}
	}
	for s, want := range map[string]string{
		"a\nb": `"a\nb"`, "\x1b[2J": `"\x1b[2J"`, "a\rb": `"a\rb"`, "bell\a": `"bell\a"`, "\u009b2J": `"\u009b2J"`, "\x7f": `"\x7f"`,
		"evil\u202etxt": `"evil\u202etxt"`, "zero\u200bwidth": `"zero\u200bwidth"`, "\u2066x": `"\u2066x"`, "\ufeffx": `"\ufeffx"`,
		"soft\u00adhyphen": `"soft\u00adhyphen"`, "line\u2028": `"line\u2028"`, "no\u00a0break": `"no\u00a0break"`, "blank\u3164": `"blank\u3164"`,
		"\xff\x1b": `"\xff\x1b"`, "\xc2": `"\xc2"`, `"quoted"`: `"\"quoted\""`, "tag\U000e0041": `"tag\U000e0041"`, "\ufffd\xfe": "\"\ufffd\\xfe\"",
	} {
		if got := Name(s); got != want {
			t.Errorf("%q is printed as %s, want %s", s, got, want)
		}
	}
}

func TestLine(t *testing.T) {
	for s, want := range map[string]string{
		"as it is: größe\n": "as it is: größe", "two\nlines": "two lines", "dos\r\nlines\r\n": "dos lines", "\x1b]0;x\a": `\x1b]0;x\a`,
		"a\tb": "a b", "\u202e\xff": `\u202e\xff`, `back\slash "x"`: `back\slash "x"`,
	} {
		if got := Line(s); got != want {
			t.Errorf("%q is printed as %q, want %q", s, got, want)
		}
	}
}

func TestJSONKeepsItsMeaning(t *testing.T) {
	want := map[string]string{"a\u202e\x1b\u009b": "北京 \u200b \U000e0041 \x7f <ä>"}
	var out bytes.Buffer
	if err := json.NewEncoder(JSON(&out)).Encode(want); err != nil {
		t.Fatal(err)
	}
	if strings.IndexFunc(strings.TrimSpace(out.String()), func(r rune) bool { return !plain(r) }) >= 0 {
		t.Errorf("raw characters in %q", out.String())
	}
	var got map[string]string
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || len(got) != 1 {
		t.Fatal(err, got)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if !strings.Contains(out.String(), "北京") {
		t.Errorf("%s: readable text is escaped", out.String())
	}
}

func FuzzQuote(f *testing.F) {
	f.Add("a\u202e\x1b\xff")
	f.Add("größe")
	f.Fuzz(func(t *testing.T, s string) {
		for _, got := range []string{Name(s), Line(s)} {
			if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }) {
				t.Errorf("%q is printed as %q", s, got)
			}
		}
	})
}
