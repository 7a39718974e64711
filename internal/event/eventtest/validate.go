// SPDX-License-Identifier: Apache-2.0

// Package eventtest holds tests to the event format: it validates lines
// against the strict JSON Schema and makes random events.
package eventtest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/twscope/twscope/internal/event"
)

// strict compiles the schema once per test binary: that takes longer than to
// validate thousands of lines.
var strict = sync.OnceValues(func() (*jsonschema.Schema, error) { return Compile(event.StrictSchema()) })

// Compile returns a JSON Schema, ready for use, with formats asserted.
func Compile(schema []byte) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		return nil, err
	}
	const url = "event.json"
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(url, doc); err != nil {
		return nil, err
	}
	return c.Compile(url)
}

// Check returns what is wrong with one line of the event log, in strict mode:
// a member that the schema does not name is wrong.
func Check(line []byte) error {
	s, err := strict()
	if err != nil {
		return fmt.Errorf("compile the schema: %w", err)
	}
	if n := len(bytes.TrimSuffix(line, []byte("\n"))) + 1; n > event.MaxLine {
		return fmt.Errorf("a line of %d bytes, longer than %d", n, event.MaxLine)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

// Validate fails the test if line is not a valid line of the event log.
func Validate(t testing.TB, line []byte) {
	t.Helper()
	if err := Check(line); err != nil {
		t.Errorf("invalid line: %v\n%s", err, line)
	}
}

// ValidateFile fails the test if a line of an event log is not valid or not
// ended, or if the log is empty. It returns the number of its lines.
func ValidateFile(t testing.TB, path string) int {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, n := bufio.NewReaderSize(f, event.MaxLine), 0
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			break
		}
		n++
		if err != nil {
			t.Fatalf("%s:%d: no end of line within %d bytes: %v", path, n, len(line), err)
		}
		if err := Check(line); err != nil {
			t.Errorf("%s:%d: invalid line: %v\n%s", path, n, err, line)
		}
	}
	if n == 0 {
		t.Errorf("%s is empty", path)
	}
	return n
}
