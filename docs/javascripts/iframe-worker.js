// Search on pages that are opened from a folder: browsers start no worker from file:// there.
// A hidden frame runs the worker's script instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      frame.srcdoc = `<script src="${url}"></` + "script>"
      this.inside = new Promise((resolve) => {
        frame.addEventListener("load", () => resolve(frame.contentWindow))
      })
      document.body.append(frame)
      // Set before the script answers its first message.
      this.inside.then((inside) => {
        inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      })
    }

    postMessage(data) {
      this.inside.then((inside) => inside.dispatchEvent(new inside.MessageEvent("message", { data })))
    }
  }
}
