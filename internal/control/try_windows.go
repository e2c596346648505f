package control

func tryRead(Conn, []byte) (n int, ok bool) { return 0, false }

func tryWrite(Conn, []byte) (n int) { return 0 }
