// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	sent := []Record{
		{Kind: KindHello, Text: "6.1.0-56-cloud-amd64"},
		{Kind: KindOut, Run: 1, Data: []byte("\x00\xff\r\n{}")},
		{Kind: KindExit, Run: 1, Code: 2, Millis: 17, Text: "killed"},
		{Kind: KindEnd},
	}
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for _, r := range sent {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	// A serial line ends lines with CR LF.
	r := NewReader(strings.NewReader(strings.ReplaceAll(buf.String(), "\n", "\r\n")))
	for i, want := range sent {
		want.Seq = uint64(i)
		got, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("record %d (-want +got):\n%s", i, d)
		}
	}
	if _, err := r.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last record: %v, want io.EOF", err)
	}
}

func TestReaderFindsLoss(t *testing.T) {
	r := NewReader(strings.NewReader("{\"seq\":0,\"kind\":\"hello\"}\n{\"seq\":2,\"kind\":\"end\"}\n"))
	if _, err := r.Read(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(); !errors.Is(err, ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("{\"seq\":0,\"kind\":\"out\",\"data\":\"AAEC\"}\n\r\n{\"seq\":1,\"kind\":\"end\"}\n"))
	f.Add([]byte("[ 0.1] kernel message\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in))
		for n := uint64(0); ; n++ {
			rec, err := r.Read()
			if err != nil {
				return
			}
			if rec.Seq != n {
				t.Fatalf("record %d accepted as number %d", rec.Seq, n)
			}
		}
	})
}
