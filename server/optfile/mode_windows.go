package optfile

// worldWritableMatters: Go makes permission bits up on Windows.
const worldWritableMatters = false
