package profiles

import "io/fs"

func ownerOf(fs.FileInfo) [2]uint32 { return [2]uint32{} }
