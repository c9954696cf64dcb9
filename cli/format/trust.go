package format

// Trust is a row of the policy of signatures.
type Trust struct{ Scope, Type, SignedBy, Identity string }

// TrustHeader holds the headings.
var TrustHeader = Trust{Scope: "SCOPE", Type: "TYPE", SignedBy: "SIGNED BY", Identity: "IDENTITY"}

// TrustTable is the usual table's template.
const TrustTable = "table {{.Scope}}\t{{.Type}}\t{{.SignedBy}}\t{{.Identity}}"
