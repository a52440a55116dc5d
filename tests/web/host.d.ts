/** What the editor uses of the host's frontend, whose modules exist only on a running server. */
declare module "*/scripts/app.js" {
  export const app: any;
}
declare module "*/scripts/api.js" {
  export const api: {
    apiURL(path: string): string;
    fetchApi(path: string, options?: RequestInit): Promise<Response>;
    addEventListener(type: string, listener: (event: any) => void): void;
  };
}
