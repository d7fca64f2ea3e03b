// The reader may choose light or dark; until then the page follows the system.
{
  const button = document.querySelector("header button");
  let dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => { button.textContent = dark ? "Light colours" : "Dark colours"; };
  button.addEventListener("click", () => {
    dark = !dark;
    document.documentElement.style.colorScheme = dark ? "dark" : "light";
    show();
  });
  show();
  button.hidden = false;
}
