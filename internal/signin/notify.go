package signin

// notification is the request of "notify".
type notification struct {
	Title string `json:"title"`
	Body  string `json:"body"`
}

func (n notification) cleaned() notification {
	return notification{Title: plain(n.Title, 200), Body: plainLines(n.Body, 500, 10)}
}
