// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"encoding/json"
	"io"
)

// WriteJSON writes the report as one JSON object, indented.
func (r Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}
