// A picture gives way to the figure that answers to the pointer when the pointer first comes to it: pages open at once,
// however many figures and points they hold.
for (const chart of document.querySelectorAll(".chart")) {
  chart.addEventListener("pointerenter", async () => {
    const drawn = document.createElement("div");
    const specification = JSON.parse(chart.querySelector("script").textContent);
    await vegaEmbed(drawn, specification, { renderer: "svg", actions: false, logLevel: 1 });
    chart.replaceChildren(drawn);
  }, { once: true });
}
