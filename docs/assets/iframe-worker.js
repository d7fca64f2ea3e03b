// A browser starts no worker for a page that was opened from a folder: there the search runs in a hidden frame instead.
// (Without this file, the build would fetch one like it from the network.)
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.appendChild(this.frame)
      const inner = this.frame.contentWindow
      const load = (address) =>
        new Promise((resolve, reject) => {
          const script = inner.document.createElement("script")
          script.src = address
          script.onload = resolve
          script.onerror = reject
          inner.document.body.appendChild(script)
        })
      inner.postMessage = (data) => setTimeout(() => this.dispatchEvent(new MessageEvent("message", { data })))
      inner.importScripts = (...addresses) => addresses.reduce((all, one) => all.then(() => load(one)), Promise.resolve())
      this.ready = load(url)
    }
    postMessage(data) {
      const { contentWindow } = this.frame
      this.ready.then(() => contentWindow.dispatchEvent(new contentWindow.MessageEvent("message", { data })))
    }
    terminate() {
      this.frame.remove()
    }
  }
}
