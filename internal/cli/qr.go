package cli

import (
	"errors"
	"strings"
)

// A QR code (ISO/IEC 18004) of bytes, versions 1 to 10: enough for the
// address of a sign-in page.

// qrVersion is what the standard's tables say of one version, by error
// correction level L and M.
type qrVersion struct {
	level [2]qrBlocks
	align []int // centres of the alignment patterns
}

// qrBlocks: blocks of data codewords (as many of size+1 as long says), each
// followed by check codewords.
type qrBlocks struct{ check, blocks, long, size int }

func (b qrBlocks) data() int { return b.blocks*b.size + b.long }

const (
	qrL = 0
	qrM = 1
)

func qrVersions() []qrVersion {
	return []qrVersion{
		{[2]qrBlocks{{7, 1, 0, 19}, {10, 1, 0, 16}}, nil},
		{[2]qrBlocks{{10, 1, 0, 34}, {16, 1, 0, 28}}, []int{6, 18}},
		{[2]qrBlocks{{15, 1, 0, 55}, {26, 1, 0, 44}}, []int{6, 22}},
		{[2]qrBlocks{{20, 1, 0, 80}, {18, 2, 0, 32}}, []int{6, 26}},
		{[2]qrBlocks{{26, 1, 0, 108}, {24, 2, 0, 43}}, []int{6, 30}},
		{[2]qrBlocks{{18, 2, 0, 68}, {16, 4, 0, 27}}, []int{6, 34}},
		{[2]qrBlocks{{20, 2, 0, 78}, {18, 4, 0, 31}}, []int{6, 22, 38}},
		{[2]qrBlocks{{24, 2, 0, 97}, {22, 4, 2, 38}}, []int{6, 24, 42}},
		{[2]qrBlocks{{30, 2, 0, 116}, {22, 5, 2, 36}}, []int{6, 26, 46}},
		{[2]qrBlocks{{18, 4, 2, 68}, {26, 5, 1, 43}}, []int{6, 28, 50}},
	}
}

// qrCode is a square of modules, true for dark.
type qrCode struct {
	size     int
	dark     [][]bool
	function [][]bool // patterns of the code itself: no data, no mask
}

// encodeQR makes the smallest code that holds text, with the better
// correction level where that costs no larger one.
func encodeQR(text []byte) (*qrCode, error) {
	for i, v := range qrVersions() {
		for _, level := range []int{qrM, qrL} {
			if data, ok := qrData(text, i+1, v.level[level].data()); ok {
				return drawQR(i+1, level, v, qrInterleave(data, v.level[level])), nil
			}
		}
	}
	return nil, errors.New("the text is too long for one")
}

// qrData is the bit stream of text in byte mode, padded to n codewords; ok is
// false where it has no room.
func qrData(text []byte, version, n int) (data []byte, ok bool) {
	bits := qrBits{}
	bits.add(0b0100, 4)
	if version < 10 {
		bits.add(len(text), 8)
	} else {
		bits.add(len(text), 16)
	}
	if version < 10 && len(text) > 255 || bits.n+8*len(text) > 8*n {
		return nil, false
	}
	for _, c := range text {
		bits.add(int(c), 8)
	}
	bits.add(0, min(4, 8*n-bits.n)) // terminator
	bits.add(0, -bits.n&7)
	for pad := 0xEC; bits.n < 8*n; pad ^= 0xEC ^ 0x11 {
		bits.add(pad, 8)
	}
	return bits.b, true
}

type qrBits struct {
	b []byte
	n int
}

func (q *qrBits) add(v, count int) {
	for i := count - 1; i >= 0; i-- {
		if q.n&7 == 0 {
			q.b = append(q.b, 0)
		}
		q.b[q.n>>3] |= byte(v>>i&1) << (7 - q.n&7)
		q.n++
	}
}

// qrInterleave splits data into blocks, adds their check codewords, and takes
// one codeword of each in turn.
func qrInterleave(data []byte, b qrBlocks) []byte {
	var blocks, checks [][]byte
	for i := range b.blocks {
		n := b.size
		if i >= b.blocks-b.long {
			n++
		}
		blocks = append(blocks, data[:n])
		checks = append(checks, qrCheck(data[:n], b.check))
		data = data[n:]
	}
	var out []byte
	for i := range b.size + 1 {
		for _, block := range blocks {
			if i < len(block) {
				out = append(out, block[i])
			}
		}
	}
	for i := range b.check {
		for _, check := range checks {
			out = append(out, check[i])
		}
	}
	return out
}

// qrMultiply multiplies in GF(256) modulo x^8+x^4+x^3+x^2+1.
func qrMultiply(a, b byte) byte {
	p := 0
	for i := 7; i >= 0; i-- {
		p = p<<1 ^ p>>7*0x11D
		p ^= int(b>>i&1) * int(a)
	}
	return byte(p)
}

// qrCheck is the Reed-Solomon remainder of n codewords.
func qrCheck(data []byte, n int) []byte {
	generator := make([]byte, n) // without its leading 1
	generator[n-1] = 1
	for i, root := 0, byte(1); i < n; i, root = i+1, qrMultiply(root, 2) {
		for j := range generator {
			generator[j] = qrMultiply(generator[j], root)
			if j+1 < n {
				generator[j] ^= generator[j+1]
			}
		}
	}
	rest := make([]byte, n)
	for _, c := range data {
		factor := c ^ rest[0]
		copy(rest, rest[1:])
		rest[n-1] = 0
		for i := range rest {
			rest[i] ^= qrMultiply(generator[i], factor)
		}
	}
	return rest
}

func drawQR(version, level int, v qrVersion, codewords []byte) *qrCode {
	q := &qrCode{size: 17 + 4*version}
	for range q.size {
		q.dark = append(q.dark, make([]bool, q.size))
		q.function = append(q.function, make([]bool, q.size))
	}
	q.patterns(version, v.align)
	q.format(level, 0) // reserves its place
	q.place(codewords)
	best, least := 0, -1
	for mask := range 8 {
		q.mask(mask)
		q.format(level, mask)
		if p := q.penalty(); least < 0 || p < least {
			best, least = mask, p
		}
		q.mask(mask) // takes it away again
	}
	q.mask(best)
	q.format(level, best)
	return q
}

func (q *qrCode) set(x, y int, dark bool) {
	q.dark[y][x], q.function[y][x] = dark, true
}

func (q *qrCode) patterns(version int, align []int) {
	for i := range q.size { // timing
		q.set(i, 6, i%2 == 0)
		q.set(6, i, i%2 == 0)
	}
	for _, at := range [][2]int{{3, 3}, {q.size - 4, 3}, {3, q.size - 4}} { // finders
		for dy := -4; dy <= 4; dy++ {
			for dx := -4; dx <= 4; dx++ {
				if x, y := at[0]+dx, at[1]+dy; x >= 0 && x < q.size && y >= 0 && y < q.size {
					ring := max(dx, -dx, dy, -dy)
					q.set(x, y, ring != 2 && ring != 4)
				}
			}
		}
	}
	last := len(align) - 1
	for i, y := range align {
		for j, x := range align {
			if i == 0 && j == 0 || i == 0 && j == last || i == last && j == 0 {
				continue // a finder is there
			}
			for dy := -2; dy <= 2; dy++ {
				for dx := -2; dx <= 2; dx++ {
					q.set(x+dx, y+dy, max(dx, -dx, dy, -dy) != 1)
				}
			}
		}
	}
	if version >= 7 {
		bits := version<<12 | qrRemainder(version, 12, 0x1F25)
		for i := range 18 {
			a, b := q.size-11+i%3, i/3
			q.set(a, b, bits>>i&1 == 1)
			q.set(b, a, bits>>i&1 == 1)
		}
	}
}

// qrRemainder is that of v times x^degree divided by the generator of a BCH
// code.
func qrRemainder(v, degree, generator int) int {
	rest := v
	for range degree {
		rest <<= 1
		if rest>>degree&1 == 1 {
			rest ^= generator
		}
	}
	return rest
}

// format writes the level and the mask, twice.
func (q *qrCode) format(level, mask int) {
	data := [2]int{qrL: 0b01, qrM: 0b00}[level]<<3 | mask
	bits := (data<<10 | qrRemainder(data, 10, 0x537)) ^ 0x5412
	bit := func(i int) bool { return bits>>i&1 == 1 }
	for i := range 6 {
		q.set(8, i, bit(i))
	}
	q.set(8, 7, bit(6))
	q.set(8, 8, bit(7))
	q.set(7, 8, bit(8))
	for i := 9; i < 15; i++ {
		q.set(14-i, 8, bit(i))
	}
	for i := range 8 {
		q.set(q.size-1-i, 8, bit(i))
	}
	for i := 8; i < 15; i++ {
		q.set(8, q.size-15+i, bit(i))
	}
	q.set(8, q.size-8, true)
}

// place lays the codewords out in columns of two, up and down in turn, from
// the right.
func (q *qrCode) place(codewords []byte) {
	i := 0
	for right := q.size - 1; right >= 1; right -= 2 {
		if right == 6 {
			right = 5 // the timing pattern's column
		}
		for step := range q.size {
			y := step
			if (right+1)&2 == 0 {
				y = q.size - 1 - step
			}
			for _, x := range []int{right, right - 1} {
				if !q.function[y][x] && i < 8*len(codewords) {
					q.dark[y][x] = codewords[i>>3]>>(7-i&7)&1 == 1
					i++
				}
			}
		}
	}
}

func (q *qrCode) mask(mask int) {
	for y := range q.size {
		for x := range q.size {
			var flip bool
			switch mask {
			case 0:
				flip = (x+y)%2 == 0
			case 1:
				flip = y%2 == 0
			case 2:
				flip = x%3 == 0
			case 3:
				flip = (x+y)%3 == 0
			case 4:
				flip = (x/3+y/2)%2 == 0
			case 5:
				flip = x*y%2+x*y%3 == 0
			case 6:
				flip = (x*y%2+x*y%3)%2 == 0
			case 7:
				flip = ((x+y)%2+x*y%3)%2 == 0
			}
			if flip && !q.function[y][x] {
				q.dark[y][x] = !q.dark[y][x]
			}
		}
	}
}

// penalty rates how hard the code is to read.
func (q *qrCode) penalty() int {
	total, dark := 0, 0
	for i := range q.size {
		row, column := make([]bool, q.size), make([]bool, q.size)
		for j := range q.size {
			row[j], column[j] = q.dark[i][j], q.dark[j][i]
			if row[j] {
				dark++
			}
		}
		total += qrLinePenalty(row) + qrLinePenalty(column)
	}
	for y := range q.size - 1 {
		for x := range q.size - 1 {
			if d := q.dark[y][x]; d == q.dark[y][x+1] && d == q.dark[y+1][x] && d == q.dark[y+1][x+1] {
				total += 3
			}
		}
	}
	// Ten for each whole five per cent away from half.
	all := q.size * q.size
	return total + 10*(max(20*dark-10*all, 10*all-20*dark)/all)
}

// qrLinePenalty: runs of five or more, and what looks like a finder with
// four light modules at one side.
func qrLinePenalty(line []bool) int {
	total := 0
	for begin := 0; begin < len(line); {
		end := begin
		for end < len(line) && line[end] == line[begin] {
			end++
		}
		if n := end - begin; n >= 5 {
			total += n - 2
		}
		begin = end
	}
	finder := []bool{true, false, true, true, true, false, true}
	light := func(from, to int) bool {
		for i := from; i < to; i++ {
			if i >= 0 && i < len(line) && line[i] {
				return false // beyond the edge it is light
			}
		}
		return true
	}
	for at := 0; at+len(finder) <= len(line); at++ {
		is := true
		for i, d := range finder {
			is = is && line[at+i] == d
		}
		if is && (light(at-4, at) || light(at+7, at+11)) {
			total += 40
		}
	}
	return total
}

// halfBlocks draws the code for a terminal, two rows a line, with the light
// frame of four modules that readers need. Its colours are set, so that it is
// dark on light whatever the terminal's are.
func (q *qrCode) halfBlocks() string {
	const quiet = 4
	at := func(x, y int) bool {
		x, y = x-quiet, y-quiet
		return x >= 0 && y >= 0 && x < q.size && y < q.size && q.dark[y][x]
	}
	var b strings.Builder
	for y := 0; y < q.size+2*quiet; y += 2 {
		b.WriteString("\x1b[30;47m")
		for x := range q.size + 2*quiet {
			switch top, bottom := at(x, y), at(x, y+1); {
			case top && bottom:
				b.WriteString("█")
			case top:
				b.WriteString("▀")
			case bottom:
				b.WriteString("▄")
			default:
				b.WriteString(" ")
			}
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String()
}
