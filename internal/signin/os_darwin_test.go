package signin

const isLinux = false
