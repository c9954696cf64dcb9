package format

// Checkpoint is a row of the list of a container's checkpoints.
type Checkpoint struct{ Name string }

// CheckpointHeader holds the heading.
var CheckpointHeader = Checkpoint{Name: "CHECKPOINT NAME"}

// CheckpointTable is the table's template.
const CheckpointTable = "table {{.Name}}"
