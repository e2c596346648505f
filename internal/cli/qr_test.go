package cli

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

// qrText has n bytes of what a sign-in page's address looks like.
func qrText(n int) string {
	return strings.Repeat("https://device.sso.eu-west-1.amazonaws.com/?user_code=ABCD-EFGH&x=", 5)[:n]
}

// One code of each version. Independent readers have read exactly these
// (zbar), and an independent encoder makes the same of the same text
// (libqrencode; another, equally valid mask for version 8).
func TestQRKnown(t *testing.T) {
	for _, c := range []struct {
		length, size int
		sum          string // of the rows, "1" for dark, each with a line feed
	}{
		{14, 21, "e51e042a98f44e1b1de449f9585aed151a2e4c1b90db2ebc70537aa552e6256e"},
		{26, 25, "6db5d7d86e831e34c6873fd5015f0fe6c461aaa1decf76e150bbb777fe5d2573"},
		{50, 29, "a7c0fde9db3ef92cf5ed2dad6908c5ffaa467c290e5b6a8bc924f556432b90c3"},
		{62, 33, "a8f14d4967360e29b5fe38ce8e81ca927a870d7af3e3498c3e89ead00cae1c78"},
		{84, 37, "5c8c5217edca70dfeafc620a642ee6e94f1010493bd25836ef79f36a3fa3f3f3"},
		{134, 41, "5099aa7d711fdf8c9165f40fd3e4db98b031189f3cc4054e955f955f92514ae6"},
		{150, 45, "1d2c6dd69045dbb2d3100594d1515b99f63822568b4883ae0a61f9557a2161a3"},
		{192, 49, "da7bf2cc62ba65d98a43b689ad79e82d1f86dc137ce5ea4fd5592d9e271567c9"},
		{200, 53, "14a3397df01833e48ba90664f3968c6f960f90bfee491c0b5f962e3e9e89bf07"},
		{231, 57, "9d64229e943316f387646465ad3089798995bffb2cf884d7e534874908d8d780"},
	} {
		q, err := encodeQR([]byte(qrText(c.length)))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, row := range q.dark {
			for _, dark := range row {
				b.WriteByte(map[bool]byte{false: '0', true: '1'}[dark])
			}
			b.WriteByte('\n')
		}
		if got := fmt.Sprintf("%x", sha256.Sum256([]byte(b.String()))); q.size != c.size || got != c.sum {
			t.Errorf("%d bytes: size %d, sum %s, want %d, %s\n%s", c.length, q.size, got, c.size, c.sum, b.String())
		}
	}
}

// Each length up to the longest is encoded, in a size that grows with it, and
// its blocks divide by their generator: evaluated at the generator's roots a
// block with its check codewords is zero.
func TestQRLengths(t *testing.T) {
	before := 0
	for n := 1; n <= 271; n++ {
		q, err := encodeQR([]byte(qrText(n)))
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if q.size < before {
			t.Errorf("%d bytes: the code shrinks to %d", n, q.size)
		}
		before = q.size
	}
	if _, err := encodeQR([]byte(qrText(272))); err == nil {
		t.Error("272 bytes were taken")
	}
	data := []byte(qrText(100))
	for _, check := range []int{7, 10, 15, 16, 18, 20, 22, 24, 26, 30} {
		block := append(data[:len(data):len(data)], qrCheck(data, check)...)
		for i, root := 0, byte(1); i < check; i, root = i+1, qrMultiply(root, 2) {
			var value byte
			for _, c := range block {
				value = qrMultiply(value, root) ^ c
			}
			if value != 0 {
				t.Errorf("%d check codewords: not zero at root %d", check, i)
			}
		}
	}
}

// What is drawn is the code: two rows a line, with a light frame.
func TestQRDrawn(t *testing.T) {
	q, err := encodeQR([]byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(q.halfBlocks(), "\n"), "\n")
	if len(lines) != (q.size+8+1)/2 {
		t.Fatalf("%d lines for %d rows", len(lines), q.size)
	}
	for i, line := range lines {
		cells := []rune(strings.TrimSuffix(strings.TrimPrefix(line, "\x1b[30;47m"), "\x1b[0m"))
		if len(cells) != q.size+8 {
			t.Fatalf("line %d has %d cells", i, len(cells))
		}
		for x, c := range cells {
			for half := range 2 {
				y, dark := 2*i+half-4, c == '█' || c == []rune("▀▄")[half]
				if in := y >= 0 && y < q.size && x >= 4 && x < 4+q.size; dark != (in && q.dark[y][x-4]) {
					t.Fatalf("row %d, column %d is wrong", y, x-4)
				}
			}
		}
	}
}
