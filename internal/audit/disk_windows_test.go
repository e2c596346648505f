package audit

func limitedChild(string, string) int { return 2 }
