// SPDX-License-Identifier: Apache-2.0

package kernel_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/twscope/twscope/internal/kernel"
	"github.com/twscope/twscope/internal/testutil"
)

func TestIsGo(t *testing.T) {
	path, err := exec.LookPath("cat")
	testutil.SkipUnless(t, err == nil, "no program here that is not built by Go")
	root := os.DirFS("/")
	cat := exec.Command(path)
	in, err := cat.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cat.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = cat.Wait() }()
	here, there := uint32(os.Getpid()), uint32(cat.Process.Pid)
	if !kernel.IsGo(root, here) || kernel.IsGo(root, there) || kernel.IsGo(root, 1<<30) {
		t.Errorf("a Go program: %t, cat: %t, nobody: %t",
			kernel.IsGo(root, here), kernel.IsGo(root, there), kernel.IsGo(root, 1<<30))
	}
	if !kernel.SameProgram(root, here, here) || kernel.SameProgram(root, here, there) || kernel.SameProgram(root, 1<<30, 1<<30) {
		t.Error("programs are not told apart")
	}
}
