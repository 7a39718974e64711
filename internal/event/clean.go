// SPDX-License-Identifier: Apache-2.0

package event

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes foreign text (a process name, a path) safe to print: control
// characters and invalid UTF-8 become \xNN, and all that is not printable or
// reorders text (C1 controls, bidirectional overrides, line separators,
// spaces other than U+0020) becomes \u{N}, both in lower case hex. Text
// without any of these is returned as it is, without allocation.
//
// The result cannot end a line, move a cursor or hide other text. It is meant
// for people: a backslash in the input stays, so the mapping has no inverse.
func Clean(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] > 0x7e {
			return cleanFrom(s, i)
		}
	}
	return s
}

// cleanFrom is Clean for text whose first i bytes are printable ASCII.
func cleanFrom(s string, i int) string {
	for i < len(s) {
		r, n := utf8.DecodeRuneInString(s[i:])
		if !printable(r, n) {
			break
		}
		i += n
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	b.WriteString(s[:i])
	for i < len(s) {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case printable(r, n):
			b.WriteString(s[i : i+n])
		case n == 1:
			const hex = "0123456789abcdef"
			b.WriteString(`\x`)
			b.WriteByte(hex[s[i]>>4])
			b.WriteByte(hex[s[i]&15])
		default:
			b.WriteString(`\u{`)
			b.WriteString(strconv.FormatUint(uint64(r), 16))
			b.WriteByte('}')
		}
		i += n
	}
	return b.String()
}

// printable tells whether r, decoded from n bytes, can be shown. A RuneError
// of one byte is invalid UTF-8; one of three bytes is a real U+FFFD.
func printable(r rune, n int) bool {
	return unicode.IsPrint(r) && (r != utf8.RuneError || n > 1)
}

// maxText is the longest text that an encoder writes, in bytes before JSON
// escaping, which at most doubles cleaned text. It keeps any one event with
// its few texts far below MaxLine.
const maxText = 2048

// text is Clean with a bound: what is longer than maxText is cut at a rune and
// ends in "...".
func text(s string) string {
	if len(s) <= maxText {
		if s = Clean(s); len(s) <= maxText {
			return s
		}
	}
	const mark = "..."
	// Cut twice, since cleaning makes text longer, and first, so that the
	// length of foreign text does not decide about the time spent on it.
	return cut(Clean(cut(s, maxText)), maxText-len(mark)) + mark
}

// cut returns the first runes of s, at most n bytes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
