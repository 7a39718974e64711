// SPDX-License-Identifier: Apache-2.0

package event

// String returns the JSON name.
func (r Role) String() string { return name(roleNames[:], uint8(r), "role") }

// MarshalText returns the JSON name; a value without one is an error.
func (r Role) MarshalText() ([]byte, error) { return marshalName(roleNames[:], uint8(r), "role") }

// UnmarshalText accepts the JSON names.
func (r *Role) UnmarshalText(text []byte) error {
	i, err := parseName(roleNames[:], string(text), "role")
	*r = Role(i)
	return err
}

// String returns the JSON name.
func (s Substate) String() string { return name(substateNames[:], uint8(s), "substate") }

// MarshalText returns the JSON name; a value without one is an error.
func (s Substate) MarshalText() ([]byte, error) {
	return marshalName(substateNames[:], uint8(s), "substate")
}

// UnmarshalText accepts the JSON names.
func (s *Substate) UnmarshalText(text []byte) error {
	i, err := parseName(substateNames[:], string(text), "substate")
	*s = Substate(i)
	return err
}

// String returns the JSON name.
func (r Reusable) String() string { return name(reusableNames[:], uint8(r), "reusable") }

// MarshalText returns the JSON name; a value without one is an error.
func (r Reusable) MarshalText() ([]byte, error) {
	return marshalName(reusableNames[:], uint8(r), "reusable")
}

// UnmarshalText accepts the JSON names.
func (r *Reusable) UnmarshalText(text []byte) error {
	i, err := parseName(reusableNames[:], string(text), "reusable")
	*r = Reusable(i)
	return err
}

// String returns the JSON name.
func (r EndReason) String() string { return name(endReasonNames[:], uint8(r), "end reason") }

// MarshalText returns the JSON name; a value without one is an error.
func (r EndReason) MarshalText() ([]byte, error) {
	return marshalName(endReasonNames[:], uint8(r), "end reason")
}

// UnmarshalText accepts the JSON names.
func (r *EndReason) UnmarshalText(text []byte) error {
	i, err := parseName(endReasonNames[:], string(text), "end reason")
	*r = EndReason(i)
	return err
}

// String returns the JSON name.
func (s Signature) String() string { return name(signatureNames[:], uint8(s), "signature") }

// MarshalText returns the JSON name; a value without one is an error.
func (s Signature) MarshalText() ([]byte, error) {
	return marshalName(signatureNames[:], uint8(s), "signature")
}

// UnmarshalText accepts the JSON names.
func (s *Signature) UnmarshalText(text []byte) error {
	i, err := parseName(signatureNames[:], string(text), "signature")
	*s = Signature(i)
	return err
}

// String returns the JSON name.
func (w Where) String() string { return name(whereNames[:], uint8(w), "where") }

// MarshalText returns the JSON name; a value without one is an error.
func (w Where) MarshalText() ([]byte, error) { return marshalName(whereNames[:], uint8(w), "where") }

// UnmarshalText accepts the JSON names.
func (w *Where) UnmarshalText(text []byte) error {
	i, err := parseName(whereNames[:], string(text), "where")
	*w = Where(i)
	return err
}

// String returns the JSON name.
func (s Segment) String() string { return name(segmentNames[:], uint8(s), "segment") }

// MarshalText returns the JSON name; a value without one is an error.
func (s Segment) MarshalText() ([]byte, error) {
	return marshalName(segmentNames[:], uint8(s), "segment")
}

// UnmarshalText accepts the JSON names.
func (s *Segment) UnmarshalText(text []byte) error {
	i, err := parseName(segmentNames[:], string(text), "segment")
	*s = Segment(i)
	return err
}

// String returns the JSON name.
func (r Reply) String() string { return name(replyNames[:], uint8(r), "reply") }

// MarshalText returns the JSON name; a value without one is an error.
func (r Reply) MarshalText() ([]byte, error) { return marshalName(replyNames[:], uint8(r), "reply") }

// UnmarshalText accepts the JSON names.
func (r *Reply) UnmarshalText(text []byte) error {
	i, err := parseName(replyNames[:], string(text), "reply")
	*r = Reply(i)
	return err
}

// String returns the JSON name.
func (t TimestampUse) String() string { return name(timestampNames[:], uint8(t), "use of timestamps") }

// MarshalText returns the JSON name; a value without one is an error.
func (t TimestampUse) MarshalText() ([]byte, error) {
	return marshalName(timestampNames[:], uint8(t), "use of timestamps")
}

// UnmarshalText accepts the JSON names.
func (t *TimestampUse) UnmarshalText(text []byte) error {
	i, err := parseName(timestampNames[:], string(text), "use of timestamps")
	*t = TimestampUse(i)
	return err
}

// String returns the JSON name.
func (c Cause) String() string { return name(causeNames[:], uint8(c), "cause") }

// MarshalText returns the JSON name; a value without one is an error.
func (c Cause) MarshalText() ([]byte, error) {
	return marshalName(causeNames[:], uint8(c), "cause")
}

// UnmarshalText accepts the JSON names.
func (c *Cause) UnmarshalText(text []byte) error {
	i, err := parseName(causeNames[:], string(text), "cause")
	*c = Cause(i)
	return err
}

// String returns the JSON name.
func (s FindingState) String() string { return name(findingStateNames[:], uint8(s), "state") }

// MarshalText returns the JSON name; a value without one is an error.
func (s FindingState) MarshalText() ([]byte, error) {
	return marshalName(findingStateNames[:], uint8(s), "state")
}

// UnmarshalText accepts the JSON names.
func (s *FindingState) UnmarshalText(text []byte) error {
	i, err := parseName(findingStateNames[:], string(text), "state")
	*s = FindingState(i)
	return err
}

// String returns the JSON name.
func (s Severity) String() string { return name(severityNames[:], uint8(s), "severity") }

// MarshalText returns the JSON name; a value without one is an error.
func (s Severity) MarshalText() ([]byte, error) {
	return marshalName(severityNames[:], uint8(s), "severity")
}

// UnmarshalText accepts the JSON names.
func (s *Severity) UnmarshalText(text []byte) error {
	i, err := parseName(severityNames[:], string(text), "severity")
	*s = Severity(i)
	return err
}

// String returns the JSON name.
func (v Verdict) String() string { return name(verdictNames[:], uint8(v), "verdict") }

// MarshalText returns the JSON name; a value without one is an error.
func (v Verdict) MarshalText() ([]byte, error) {
	return marshalName(verdictNames[:], uint8(v), "verdict")
}

// UnmarshalText accepts the JSON names.
func (v *Verdict) UnmarshalText(text []byte) error {
	i, err := parseName(verdictNames[:], string(text), "verdict")
	*v = Verdict(i)
	return err
}

// String returns the JSON name.
func (r Rule) String() string { return name(ruleNames[:], uint8(r), "rule") }

// MarshalText returns the JSON name; a value without one is an error.
func (r Rule) MarshalText() ([]byte, error) {
	return marshalName(ruleNames[:], uint8(r), "rule")
}

// UnmarshalText accepts the JSON names.
func (r *Rule) UnmarshalText(text []byte) error {
	i, err := parseName(ruleNames[:], string(text), "rule")
	*r = Rule(i)
	return err
}

// String returns the JSON name.
func (c ClockClass) String() string { return name(clockClassNames[:], uint8(c), "class") }

// MarshalText returns the JSON name; a value without one is an error.
func (c ClockClass) MarshalText() ([]byte, error) {
	return marshalName(clockClassNames[:], uint8(c), "class")
}

// UnmarshalText accepts the JSON names.
func (c *ClockClass) UnmarshalText(text []byte) error {
	i, err := parseName(clockClassNames[:], string(text), "class")
	*c = ClockClass(i)
	return err
}

// String returns the JSON name.
func (s Strength) String() string { return name(strengthNames[:], uint8(s), "strength") }

// MarshalText returns the JSON name; a value without one is an error.
func (s Strength) MarshalText() ([]byte, error) {
	return marshalName(strengthNames[:], uint8(s), "strength")
}

// UnmarshalText accepts the JSON names.
func (s *Strength) UnmarshalText(text []byte) error {
	i, err := parseName(strengthNames[:], string(text), "strength")
	*s = Strength(i)
	return err
}
