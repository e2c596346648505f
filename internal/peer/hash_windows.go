package peer

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// fileBasicInfo is FILE_BASIC_INFO (winbase.h).
type fileBasicInfo struct {
	creation, access, write, change windows.Filetime
	attributes                      uint32
	_                               uint32
}

// identity is the state of an open file.
func identity(f *os.File) (fileID, error) {
	h := windows.Handle(f.Fd())
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		return fileID{}, os.NewSyscallError("GetFileInformationByHandle", err)
	}
	var basic fileBasicInfo
	if err := windows.GetFileInformationByHandleEx(h, windows.FileBasicInfo, (*byte)(unsafe.Pointer(&basic)), uint32(unsafe.Sizeof(basic))); err != nil {
		return fileID{}, os.NewSyscallError("GetFileInformationByHandleEx", err)
	}
	return fileID{
		dev: uint64(info.VolumeSerialNumber), ino: uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow),
		size: int64(info.FileSizeHigh)<<32 | int64(info.FileSizeLow), mtime: basic.write.Nanoseconds(), ctime: basic.change.Nanoseconds(),
	}, nil
}
