// A file of its own, so that the page's Content-Security-Policy can forbid inline scripts.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: true,
  showCommonExtensions: true,
  tryItOutEnabled: true,
  // Else the page asks an online service for a badge.
  validatorUrl: null,
});
