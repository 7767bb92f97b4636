// The line under the live picture, and the picture again when the server comes back.

const caption = document.querySelector("#caption");
const picture = document.querySelector(".live");
let lost = false;

async function tell() {
  try {
    const answer = await fetch("/caption");
    if (!answer.ok) throw new Error();
    const text = await answer.text();
    if (caption.textContent !== text) caption.textContent = text;
    if (lost) picture.src = `/live?${Date.now()}`;
    lost = false;
  } catch {
    lost = true;
    caption.textContent = "The stream has ended or the server is gone.";
  }
  setTimeout(tell, lost ? 2000 : 500);
}
tell();
