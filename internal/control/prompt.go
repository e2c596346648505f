package control

import (
	"context"
	"encoding/json"
	"sync"
)

// The kinds of Prompt, and the answer to PromptBrowser where none can be
// opened.
const (
	PromptMFA     = "mfa"
	PromptConfirm = "confirm"
	PromptBrowser = "browser"
	PromptDevice  = "device"
	PromptCode    = "code"
	PromptSAML    = "saml"
	PromptChoice  = "choice"

	AnswerNoBrowser = "no-browser"
	AnswerNo        = "no" // of PromptConfirm
)

// prompts puts questions to the handler, one after the other, in a goroutine
// of its own, so that a reply that comes meanwhile is seen. stop joins it.
//
// The daemon has one question open on a connection: a new one says that the
// one before is settled (somebody else has answered it, a browser has come
// back), so that its handler's context ends.
type prompts struct {
	client *Client
	handle Handler

	cancel context.CancelFunc // nil while no goroutine runs
	settle context.CancelFunc // of the newest question
	queue  chan question      // the newest, until the handler takes it
	done   chan struct{}

	mu  sync.Mutex // guards err
	err error
}

type question struct {
	ctx context.Context
	e   Event
}

func (p *prompts) event(ctx context.Context, e Event) error {
	if p.handle == nil {
		if e.Event == EventPrompt {
			return &Error{Code: CodeInteraction, Message: "cannot answer keyfobd's question here"}
		}
		return nil
	}
	if e.Event != EventPrompt || e.Prompt == nil {
		_, err := p.handle(ctx, e)
		return err
	}
	if p.cancel == nil {
		ctx, p.cancel = context.WithCancel(ctx)
		p.queue = make(chan question, 1)
		p.done = make(chan struct{})
		go p.run(ctx)
	} else {
		p.settle()
	}
	var q question
	q.e = e
	q.ctx, p.settle = context.WithCancel(ctx)
	select {
	case <-p.queue: // settled before the handler came to it
	default:
	}
	p.queue <- q // has room: nobody else sends
	return nil
}

func (p *prompts) run(ctx context.Context) {
	defer close(p.done)
	for {
		select {
		case <-ctx.Done():
			return
		case q := <-p.queue:
			if q.ctx.Err() != nil {
				continue
			}
			answer, err := p.handle(q.ctx, q.e)
			if q.ctx.Err() != nil {
				continue // settled: nobody waits for it
			}
			if err == nil && answer != nil {
				err = p.client.answer(q.e, *answer)
			}
			if err != nil {
				p.mu.Lock()
				p.err = err
				p.mu.Unlock()
				_ = p.client.conn.SetReadDeadline(past) // wakes the reader
				return
			}
		}
	}
}

// answer sends the answer to the question e.
func (c *Client) answer(e Event, a Answer) error {
	a.ID, a.Interaction = e.ID, e.Prompt.Interaction
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return c.send(append(line, '\n'))
}

func (p *prompts) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *prompts) stop() {
	if p.cancel != nil {
		p.settle()
		p.cancel()
		<-p.done
	}
}
