// SPDX-License-Identifier: Apache-2.0

package paws_test

import (
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/twscope/twscope/internal/paws"
	"github.com/twscope/twscope/internal/testutil"
)

// question is struct question of testdata/kernel.c.
type question struct {
	TSRecent, Stamp, TSval, Now, Wrap uint32
	Seq, RcvNxt, RcvWnd               uint32
	HostTS, HostStamp                 uint32
	Flags                             uint32
}

const (
	flagRST = 1 << iota
	flagWindow
	flagTimestamps
	flagFinWait2
	flagsAll = 1<<iota - 1
)

// answer is struct answer of testdata/kernel.c.
type answer struct {
	Before, Check, Reject, Check2632, Reject2632 uint8
	TimeWait, TimeWait2632                       uint8
	Refuses                                      [3]uint8 // by Recycle
	_                                            [2]uint8
	Host2632, Host310                            paws.Host
}

// batch is BATCH of testdata/kernel.c.
const batch = 4096

// kernel is testdata/kernel.c, running.
type kernel struct {
	tb        testing.TB
	in        io.Writer
	out       io.Reader
	questions []question
	answers   []answer
	asked     int
}

// compiler returns a C compiler that makes programs. It skips the test only if
// the machine has none.
func compiler(tb testing.TB) string {
	tb.Helper()
	names := []string{"cc", "gcc", "clang"}
	if cc := os.Getenv("CC"); cc != "" {
		names = []string{cc}
	}
	dir := tb.TempDir()
	source := filepath.Join(dir, "any.c")
	if err := os.WriteFile(source, []byte("#include <unistd.h>\nint main(void) { return 0; }\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	for _, name := range names {
		if exec.CommandContext(tb.Context(), name, "-o", filepath.Join(dir, "any"), source).Run() == nil {
			return name
		}
	}
	testutil.SkipUnless(tb, false, "no C compiler with a C library compiles an empty program")
	return ""
}

func startKernel(tb testing.TB) *kernel {
	tb.Helper()
	cc, program := compiler(tb), filepath.Join(tb.TempDir(), "kernel")
	build := exec.CommandContext(tb.Context(), cc, "-std=gnu99", "-Wall", "-Wextra", "-Werror", "-Wno-sign-compare",
		"-O2", "-fwrapv", "-o", program, filepath.Join("testdata", "kernel.c"))
	if text, err := build.CombinedOutput(); err != nil {
		tb.Fatalf("%v: %v\n%s", build, err, text)
	}
	cmd := exec.CommandContext(tb.Context(), program)
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil && tb.Context().Err() == nil {
			tb.Errorf("kernel.c: %v", err)
		}
	})
	return &kernel{tb: tb, in: in, out: out, answers: make([]answer, batch)}
}

// ask has q answered and compared, now or by a later call.
func (k *kernel) ask(q question) {
	k.tb.Helper()
	if k.questions = append(k.questions, q); len(k.questions) == batch {
		k.flush()
	}
}

// flush compares all that is still to be compared.
func (k *kernel) flush() {
	k.tb.Helper()
	if len(k.questions) == 0 {
		return
	}
	asked := len(k.questions)
	for len(k.questions) < batch {
		k.questions = append(k.questions, question{})
	}
	if _, err := k.in.Write(raw(k.questions)); err != nil {
		k.tb.Fatal(err)
	}
	if _, err := io.ReadFull(k.out, raw(k.answers)); err != nil {
		k.tb.Fatal(err)
	}
	for i, a := range k.answers[:asked] {
		if got := solve(k.questions[i]); got != a {
			k.tb.Fatalf("%+v:\nwe:     %+v\nkernel: %+v", k.questions[i], got, a)
		}
	}
	k.questions, k.asked = k.questions[:0], k.asked+asked
}

// raw returns the memory of s, which has no pointers and no holes.
func raw[T question | answer](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(s[0])))
}

// solve answers q by the package.
func solve(q question) answer {
	rst, window := q.Flags&flagRST != 0, int32(0)
	if q.Flags&flagWindow != 0 {
		window = paws.Window
	}
	recent := paws.Recent{TSval: q.TSRecent, Stamp: q.Stamp}
	syn := paws.SYN{Seq: q.Seq, Timestamps: q.Flags&flagTimestamps != 0, TSval: q.TSval}
	tw := paws.TimeWait{Recent: recent, FinWait2: q.Flags&flagFinWait2 != 0, RcvNxt: q.RcvNxt, RcvWnd: q.RcvWnd}
	host := paws.Host{TSval: q.HostTS, Stamp: q.HostStamp}
	a := answer{
		Before:       number(paws.Before(q.Seq, q.RcvNxt)),
		Check:        number(paws.Check(recent, q.TSval, window, q.Now, q.Wrap)),
		Reject:       number(paws.Reject(recent, q.TSval, rst, q.Now, q.Wrap)),
		Check2632:    number(paws.Check2632(recent, q.TSval, window, q.Now)),
		Reject2632:   number(paws.Reject2632(recent, q.TSval, rst, q.Now)),
		TimeWait:     status(tw.Receive(syn, q.Now, q.Wrap)),
		TimeWait2632: status(tw.Receive2632(syn, q.Now)),
		Host2632:     host.Remember(paws.Recycle2632, recent, q.Now),
		Host310:      host.Remember(paws.Recycle310, recent, q.Now),
	}
	for i := range a.Refuses {
		a.Refuses[i] = number(host.Refuses(paws.Recycle(i), syn, q.Now))
	}
	return a
}

func number(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// status is enum tw_status of testdata/kernel.c.
func status(o paws.Outcome) uint8 {
	return [...]uint8{paws.PAWS: 0, paws.Sequence: 1, paws.Reset: 2, paws.Accept: 3}[o]
}

// TestKernelBoundaries combines all values at which an answer may change.
func TestKernelBoundaries(t *testing.T) {
	k := startKernel(t)
	clocks := []uint32{0, 1, 1 << 31, 1<<32 - 1}
	ahead := []uint32{0, 1, 2, 1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 - 2, 1<<32 - 1}
	for _, wrap := range []uint32{paws.WrapMicroseconds, paws.Wrap24Days} {
		ages := []uint32{
			0, 1, paws.MSL - 1, paws.MSL, paws.MSL + 1, wrap - 1, wrap, wrap + 1,
			1<<31 - 1, 1 << 31, 1<<31 + paws.MSL - 1, 1<<31 + paws.MSL, 1<<31 + wrap - 1, 1<<31 + wrap,
			1<<32 - 1, 1<<32 - paws.MSL - 1, 1<<32 - paws.MSL, -wrap,
		}
		for _, base := range clocks {
			for _, tsAhead := range ahead {
				for _, stamp := range clocks {
					for _, age := range ages {
						for i, seqAhead := range ahead {
							// The clocks of host and socket take the same
							// steps, and the host's the other way round too.
							q := question{
								TSRecent: base, TSval: base + tsAhead, Stamp: stamp, Now: stamp + age, Wrap: wrap,
								RcvNxt: base, Seq: base + seqAhead, RcvWnd: ahead[len(ahead)-1-i],
								HostTS: base + ahead[(i+3)%len(ahead)], HostStamp: stamp + ages[i],
							}
							for q.Flags = range uint32(flagsAll + 1) {
								k.ask(q)
							}
						}
					}
				}
			}
		}
	}
	k.flush()
	t.Logf("%d cases", k.asked)
}

// TestKernelRandom asks what comes, half of it where the answers differ.
func TestKernelRandom(t *testing.T) {
	cases := 2_000_000
	if testing.Short() {
		cases = 200_000
	}
	k := startKernel(t)
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	near := func(to uint32) uint32 {
		if r.IntN(2) == 0 {
			return to + r.Uint32N(8) - 4
		}
		return r.Uint32()
	}
	for range cases {
		q := question{
			TSRecent: near(0), Stamp: near(0), RcvNxt: r.Uint32(), RcvWnd: r.Uint32() >> r.IntN(32),
			Wrap: paws.WrapMicroseconds, Flags: r.Uint32N(flagsAll + 1),
		}
		if r.IntN(2) == 0 {
			q.Wrap = paws.Wrap24Days
		}
		q.TSval, q.HostTS = near(q.TSRecent), near(q.TSRecent)
		q.Now = near(q.Stamp + [...]uint32{0, paws.MSL, q.Wrap, 1 << 31}[r.IntN(4)])
		q.HostStamp = near([...]uint32{q.Stamp, q.Now - paws.MSL, q.Now}[r.IntN(3)])
		q.Seq = near(q.RcvNxt + [...]uint32{0, q.RcvWnd, 1 << 31}[r.IntN(3)])
		k.ask(q)
	}
	k.flush()
	t.Logf("%d cases from seed %d", k.asked, seed)
}
