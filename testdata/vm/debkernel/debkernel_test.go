// SPDX-License-Identifier: Apache-2.0

package debkernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const packagesText = `Package: linux-image-7.3-cloud-amd64
Version: 7.3~rc7-1~exp1

Package: linux-image-7.2.13+deb14-cloud-amd64
Version: 7.2.13-1

Package: linux-image-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1~bpo13+1
Depends: initramfs-tools (>= 0.1) | dracut, linux-binary-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1), linux-base (>= 4.3~)
Description: Linux: Package: of sorts

Package: linux-binary-7.3.4+deb13-cloud-amd64
Version: 7.3.4-1~bpo13+1

Package: linux-image-6.1.0-9-cloud-amd64
Version: 6.1.27-1

Package: linux-image-6.1.0-56-cloud-amd64
Version: 6.1.192-2

Package: linux-image-6.1.0-57-cloud-amd64-unsigned
Version: 6.1.193-1

Package: linux-image-6.12-cloud-amd64
Version: 6.12.117-1
`

func TestReleasesOf(t *testing.T) {
	if _, err := exec.LookPath("dpkg"); err != nil {
		t.Skip("no dpkg, whose order of versions is the one that counts")
	}
	all := parsePackages([]byte(packagesText))
	for series, want := range map[string][]string{
		"7":    {"7.3.4+deb13-cloud-amd64", "7.2.13+deb14-cloud-amd64"},
		"7.2":  {"7.2.13+deb14-cloud-amd64"},
		"6.1":  {"6.1.0-56-cloud-amd64", "6.1.0-9-cloud-amd64"},
		"6.12": nil,
	} {
		if d := cmp.Diff(want, releasesOf(all, "amd64", series, debianLess(t.Context()))); d != "" {
			t.Errorf("series %s (-want +got):\n%s", series, d)
		}
	}
}

func TestClosure(t *testing.T) {
	all := parsePackages([]byte(packagesText))
	want := []string{
		"linux-image-7.3.4+deb13-cloud-amd64=7.3.4-1~bpo13+1", "linux-binary-7.3.4+deb13-cloud-amd64=7.3.4-1~bpo13+1",
	}
	got, err := closure(all, "7.3.4+deb13-cloud-amd64")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	delete(all, "linux-binary-7.3.4+deb13-cloud-amd64")
	if _, err := closure(all, "7.3.4+deb13-cloud-amd64"); err == nil || !strings.Contains(err.Error(), "lacks its package linux-binary-7.3.4") {
		t.Errorf("with a part missing: %v", err)
	}
}

func TestModulePaths(t *testing.T) {
	got, err := modulePaths(fstest.MapFS{
		"kernel/net/nf-nat.ko.xz": {}, "kernel/drivers/veth.ko": {}, "modules.order": {}, "kernel/x.korn": {},
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"nf_nat": "kernel/net/nf-nat.ko.xz", "veth": "kernel/drivers/veth.ko"}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// bzImage wraps data as an x86 boot image does: one set-up sector, then 16 bytes of code.
func bzImage(data []byte) []byte {
	image := make([]byte, 2*512+16)
	image[0x1f1] = 1
	copy(image[0x202:], "HdrS")
	binary.LittleEndian.PutUint32(image[0x248:], 16)
	binary.LittleEndian.PutUint32(image[0x24c:], uint32(len(data)))
	return append(image, data...)
}

func zboot(data []byte) []byte {
	image := make([]byte, 0x41)
	copy(image, "MZ\x00\x00zimg")
	binary.LittleEndian.PutUint32(image[8:], uint32(len(image)))
	binary.LittleEndian.PutUint32(image[12:], uint32(len(data)))
	return append(image, data...)
}

func TestPayload(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte("the kernel")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	packed.WriteString("size") // as the boot image appends it
	for name, image := range map[string][]byte{
		"x86": bzImage(packed.Bytes()), "zboot": zboot(packed.Bytes()), "gzip": packed.Bytes(), "plain": []byte("the kernel"),
	} {
		t.Run(name, func(t *testing.T) {
			data, err := payload(image)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decompress(t.Context(), data)
			if err != nil || string(got) != "the kernel" {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestFindBTFRefuses(t *testing.T) {
	for name, data := range map[string][]byte{
		"nothing":  nil,
		"no magic": []byte("no type information here"),
		"lengths that point outside": []byte("\x9f\xeb\x01\x00\x18\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff" +
			"\xff\xff\xff\xff\xff\xff\xff\xff"),
		"too short": []byte("....\x9f\xeb\x01\x00"),
	} {
		if got, err := findBTF(data); err == nil || !strings.Contains(err.Error(), "no BTF") {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}

func FuzzImage(f *testing.F) {
	f.Add(bzImage([]byte("kernel")))
	f.Add(zboot([]byte("kernel")))
	f.Add([]byte("\x9f\xeb\x01\x00\x18\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, image []byte) {
		data, err := payload(image)
		if err != nil {
			return
		}
		if len(data) > len(image) {
			t.Fatalf("%d bytes out of %d", len(data), len(image))
		}
		isELF := bytes.HasPrefix(data, []byte("\x7fELF"))
		if got, err := findBTF(data); err == nil && !isELF && len(got) < minBTF {
			t.Fatalf("took %d bytes for a kernel's type information", len(got))
		}
	})
}

func FuzzModuleDepends(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, module []byte) {
		needs, err := moduleDepends(module)
		if err != nil && needs != nil {
			t.Fatalf("both %q and %v", needs, err)
		}
	})
}

func FuzzParsePackages(f *testing.F) {
	f.Add([]byte(packagesText))
	f.Fuzz(func(t *testing.T, text []byte) {
		for name := range parsePackages(text) {
			if name == "" {
				t.Fatal("a package without a name")
			}
		}
	})
}
