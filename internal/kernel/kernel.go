// SPDX-License-Identifier: Apache-2.0

// Package kernel tells what the running kernel is and has: its release and
// tick, what its BTF shows, its counters, sysctls, network namespaces,
// cgroups, processes, and our capabilities.
//
// What comes from files is read from an [io/fs.FS] that stands for "/", so
// that any kernel can be described in a test; [os.DirFS]("/") is this host.
// A fs.FS that shows links must implement [io/fs.ReadLinkFS].
package kernel
