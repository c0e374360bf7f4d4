// Hides the rows, marks and figures whose task, cell or implementation was not chosen.
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const names = ["task", "cell", "implementation"];
  const apply = () => {
    const chosen = names.map((name) => [name, form.elements[name]?.value ?? ""]);
    const fits = (element) =>
      chosen.every(([name, value]) =>
        value === "" || !(name in element.dataset) || element.dataset[name] === value);
    const keyed = "main [data-task], main [data-cell], main [data-implementation]";
    for (const element of document.querySelectorAll(keyed)) {
      element.classList.toggle("filtered", !fits(element));
    }
    // A block whose rows are all hidden keeps no heading.
    for (const body of document.querySelectorAll("main tbody")) {
      const rows = [...body.querySelectorAll("tr[data-cell], tr[data-task]")];
      const gone = rows.length > 0 && rows.every((r) => r.classList.contains("filtered"));
      for (const row of body.querySelectorAll("tr.place")) {
        row.classList.toggle("filtered", gone);
      }
      body.classList.toggle("emptied", gone);
    }
  };
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
})();
