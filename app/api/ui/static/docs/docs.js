// A separate file, because the page's Content-Security-Policy forbids inline scripts.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: true,
  showCommonExtensions: true,
  tryItOutEnabled: true,
  // Otherwise the page requests a badge from an online service.
  validatorUrl: null,
});
