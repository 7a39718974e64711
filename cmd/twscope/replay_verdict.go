// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/twscope/twscope/internal/event"
)

// conclude takes the end of a run: with --check, the verdict that the log
// holds must be the one that is drawn.
func (p *replay) conclude(stop *event.Stop) error {
	v := p.analysis.Verdict()
	drawn := v.Encode()
	if p.opts.check && stop.Conclusion != nil && !bytes.Equal(stop.Conclusion, drawn) {
		return fmt.Errorf("the replay differs from the log at the verdict, of event %d:\nrecorded: %s\nreplayed: %s",
			p.events, event.Clean(string(stop.Conclusion)), event.Clean(string(drawn)))
	}
	p.stop = *stop
	p.stop.Conclusion = drawn
	return nil
}

// tellVerdict ends what is told by the verdict: as text, or within the stop
// event, which is a line of the log, if the log has one.
func (p *replay) tellVerdict() error {
	var err error
	switch {
	case p.opts.check:
	case p.opts.format == "json":
		if p.stopped {
			_, err = p.out.Write(p.enc.Append(nil, &p.stop))
		}
	default:
		v := p.analysis.Verdict()
		between := ""
		if p.findings > 0 {
			between = "\n"
		}
		_, err = p.out.WriteString(between + strings.TrimRight(v.Text(p.style), "\n") + "\n")
	}
	return err
}
