// SPDX-License-Identifier: Apache-2.0

package debkernel

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/cilium/ebpf/btf"
)

// BTF returns the kernel's type information, cut out of its image; there is no need to boot it.
func (k *Kernel) BTF(ctx context.Context) ([]byte, error) {
	image, err := os.ReadFile(k.Image())
	if err != nil {
		return nil, err
	}
	packed, err := payload(image)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.Image(), err)
	}
	kernel, err := decompress(ctx, packed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.Image(), err)
	}
	return findBTF(kernel)
}

// payload finds the packed kernel in a boot image.
func payload(image []byte) ([]byte, error) {
	le := binary.LittleEndian
	switch {
	case len(image) > 0x250 && string(image[0x202:0x206]) == "HdrS":
		// x86: Documentation/arch/x86/boot.rst, fields setup_sects, payload_offset and payload_length.
		sectors := int64(image[0x1f1])
		if sectors == 0 {
			sectors = 4
		}
		return cut(image, (sectors+1)*512+int64(le.Uint32(image[0x248:])), int64(le.Uint32(image[0x24c:])))
	case len(image) > 0x40 && string(image[:2]) == "MZ" && string(image[4:8]) == "zimg":
		// EFI zboot: drivers/firmware/efi/libstub/zboot-header.S.
		return cut(image, int64(le.Uint32(image[8:])), int64(le.Uint32(image[12:])))
	}
	// arm64 without zboot: a plain or gzip'ed Image.
	return image, nil
}

func cut(b []byte, from, n int64) ([]byte, error) {
	if from < 0 || n < 0 || from+n > int64(len(b)) {
		return nil, fmt.Errorf("the header points outside the image: %d bytes at %d of %d", n, from, len(b))
	}
	return b[from : from+n], nil
}

// decompress unpacks by magic number; what has none is returned as it is.
func decompress(ctx context.Context, data []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		// The boot image appends the unpacked size, which is no second member.
		r.Multistream(false)
		return io.ReadAll(r)
	case bytes.HasPrefix(data, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return filter(ctx, data, "xz-utils", "xz", "-dc", "--single-stream")
	case bytes.HasPrefix(data, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return filter(ctx, data, "zstd", "zstd", "-dcq")
	case bytes.HasPrefix(data, []byte{0x02, 0x21, 0x4c, 0x18}):
		return filter(ctx, data, "lz4", "lz4", "-dcq")
	}
	return data, nil
}

func filter(ctx context.Context, data []byte, from, tool string, args ...string) ([]byte, error) {
	if err := needTool(tool, from); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, tool, args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(data), &stderr
	out, err := cmd.Output()
	// The size that the boot image appends makes some tools complain of garbage after they have unpacked all.
	if err != nil && len(out) <= len(data) {
		return nil, fmt.Errorf("%s: %w: %.200s", tool, err, stderr.Bytes())
	}
	return out, nil
}

// minBTF is well below the size, in bytes, of any kernel's BTF and above that of other blobs that an image may hold.
const minBTF = 1 << 20

// findBTF takes the section .BTF of an ELF file; an arm64 Image has no sections, so there it is searched for.
func findBTF(kernel []byte) ([]byte, error) {
	if f, err := elf.NewFile(bytes.NewReader(kernel)); err == nil {
		sec := f.Section(".BTF")
		if sec == nil {
			return nil, errors.New("the kernel has no section .BTF")
		}
		return sec.Data()
	}
	const headerLen = 24 // struct btf_header, include/uapi/linux/btf.h
	le := binary.LittleEndian
	magic := []byte{0x9f, 0xeb, 1, 0} // magic, version, flags
	for at := 0; ; at++ {
		next := bytes.Index(kernel[at:], magic)
		if next < 0 || at+next+headerLen > len(kernel) {
			return nil, errors.New("the kernel holds no BTF")
		}
		at += next
		h := kernel[at:]
		blob, err := cut(h, 0, int64(le.Uint32(h[4:]))+int64(le.Uint32(h[16:]))+int64(le.Uint32(h[20:])))
		if err != nil || le.Uint32(h[4:]) < headerLen {
			continue
		}
		if _, err := btf.LoadSpecFromReader(bytes.NewReader(blob)); err == nil && len(blob) >= minBTF {
			return blob, nil
		}
	}
}
