package signin

// findBrowser is the first installed browser that can be driven.
func findBrowser() (string, error) {
	return onPath("google-chrome-stable", "google-chrome", "chromium", "chromium-browser", "microsoft-edge-stable", "microsoft-edge",
		"google-chrome-beta", "microsoft-edge-beta")
}
