/* The search field's text is its name; the theme gives it another one besides, which those who speak commands can't guess. */
document.addEventListener("DOMContentLoaded", function () {
  "use strict";
  document.querySelectorAll(".search-button-field").forEach(function (button) {
    button.removeAttribute("aria-label");
  });
});
