package signin

const isLinux = true
