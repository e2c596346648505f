package rolesanywhere

// openToOthers says nothing: the mode bits of Windows do not tell who may
// read a file.
func openToOthers(fileState) (warning, bool) { return warning{}, false }
